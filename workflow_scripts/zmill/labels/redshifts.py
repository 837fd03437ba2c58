"""Validity of spectroscopic redshift values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HIGHEST_REDSHIFT = 20.0
"""No spectroscopic redshift is above this; larger numbers are velocities or mark a missing value."""


def without_redshift(redshift: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(n,) numbers that are no redshift (not finite, or -1 and below), and (n,) those above any redshift."""
    missing = ~np.isfinite(redshift) | (redshift <= -1)
    return missing, ~missing & (redshift > HIGHEST_REDSHIFT)
