"""Spectra in cells of equal width in ln(wavelength), on which a redshift is a shift; and emission lines in such cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from zmill.units import LIGHT_SPEED_KM_S

Array = NDArray[np.float64]

FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))
"""Full width at half maximum of a Gaussian, in standard deviations."""
REACH = 5.0
"""Standard deviations of a Gaussian that are taken into account."""


@dataclass(frozen=True)
class Cells:
    """Cells of equal width in ln(wavelength). start : ln of the first edge, in Angstrom; step : width; size : number."""

    start: float
    step: float
    size: int

    @classmethod
    def cover(cls, low: float, high: float, step: float) -> Cells:
        """Cells from a wavelength to another, in Angstrom."""
        return cls(float(np.log(low)), step, int(np.ceil(np.log(high / low) / step)))

    @property
    def edges(self) -> Array:
        """(size + 1,) Angstrom."""
        return np.exp(self.start + self.step * np.arange(self.size + 1))

    @property
    def centers(self) -> Array:
        """(size,) Angstrom."""
        return np.exp(self.start + self.step * (np.arange(self.size) + 0.5))

    @property
    def range(self) -> tuple[float, float]:
        """First and last edge, Angstrom."""
        return float(np.exp(self.start)), float(np.exp(self.start + self.step * self.size))


def line_energy(cells: Cells, wavelength: float, flux: float, dispersion: float) -> tuple[slice, Array]:
    """Energy of an emission line in cells: the cells, and their energy.

    Parameters
    ----------
    wavelength : Angstrom.
    flux : total.
    dispersion : of the velocities, km/s.
    """
    center, sigma = np.log(wavelength), dispersion / LIGHT_SPEED_KM_S
    low, high = ((center + side * REACH * sigma - cells.start) / cells.step for side in (-1, 1))
    part = slice(max(int(np.floor(low)), 0), min(int(np.ceil(high)), cells.size))
    if part.stop <= part.start:
        return slice(0, 0), np.empty(0)
    edges = cells.start + cells.step * np.arange(part.start, part.stop + 1)
    return part, np.asarray(flux * np.diff(ndtr((edges - center) / sigma)))
