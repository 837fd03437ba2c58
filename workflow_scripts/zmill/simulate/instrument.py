"""An instrument that takes spectra of many galaxies: its spectrograph, its galaxies and its noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmill.sed import LIGHT_SPEED
from zmill.simulate.spectrograph import Spectrograph

Array = NDArray[np.float64]

UNIT = 1e-17
"""erg / s / cm2 / Angstrom: the unit of `flux`; that of `ivar` is its inverse square."""


@dataclass(frozen=True)
class Instrument:
    """What spectra of an instrument are simulated from.

    z : smallest and largest redshift.
    band : Angstrom; `magnitude` is the AB magnitude of the mean f_nu in this range.
    draw : n -> (n,) redshifts and (n,) magnitudes.
    sigma : (n, p) fluxes in `UNIT` -> (n, p) standard deviations of the noise.
    """

    spectrograph: Spectrograph
    z: tuple[float, float]
    band: tuple[float, float]
    draw: Callable[[np.random.Generator, int], tuple[Array, Array]]
    sigma: Callable[[Array], Array]


def from_histogram(rng: np.random.Generator, edges: Array, density: Array, n: int) -> Array:
    """(n,) draws from a density that is linear between its values (k,) at `edges` (k,)."""
    mass = np.concatenate([[0.0], np.cumsum(np.diff(edges) * (density[1:] + density[:-1]) / 2)])
    fine = np.linspace(edges[0], edges[-1], 20_001)
    at = np.clip(np.searchsorted(edges, fine, side="right") - 1, 0, len(edges) - 2)
    along = fine - edges[at]
    slope = (density[at + 1] - density[at]) / (edges[at + 1] - edges[at])
    cumulative = mass[at] + along * (density[at] + slope * along / 2)
    return np.interp(rng.uniform(0, cumulative[-1], n), cumulative, fine)


def counts(rng: np.random.Generator, bright: float, faint: float, slope: float, n: int) -> Array:
    """(n,) magnitudes whose numbers rise as 10^(slope m) between two limits."""
    ends = 10 ** (slope * (np.array([bright, faint]) - faint))
    return faint + np.log10(rng.uniform(ends[0], ends[1], n)) / slope


def flux_of(magnitude: Array | float, wavelength: Array) -> Array:
    """f_lambda in `UNIT` of AB magnitudes at wavelengths in Angstrom."""
    return np.asarray(10 ** (-0.4 * (np.asarray(magnitude) + 48.6)) * LIGHT_SPEED / wavelength**2 / UNIT)
