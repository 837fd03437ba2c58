"""Warnings of bands that are constant over the training rows; a model cannot use them."""

from __future__ import annotations

import numpy as np

from zmill.inputs.photometry.batch import Photometry
from zmill.workflow.warning import Warnings


def warn_of_constants(train: Photometry, warnings: Warnings) -> None:
    """Warn of each band whose measured magnitude is the same in all training rows."""
    for band, mag, measured in zip(train.bands, train.mag.T, train.measured.T, strict=True):
        values = np.unique(mag[measured])
        if len(values) == 1 and measured.sum() > 1:
            warnings.add(
                f"mag_{band} is {values[0]:g} in all {measured.sum():,} training rows that have it: a constant carries no information on redshifts. Check "
                "that columns.flux of the survey definition names the survey's magnitudes or fluxes, and not a constant"
            )
