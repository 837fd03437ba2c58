"""Spectra in memory."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from zmill.inputs.base import Batch
from zmill.inputs.spectrum.continuum import bin_means, level, median_sn
from zmill.inputs.spectrum.grid import WavelengthGrid

NO_GOOD_PIXEL, FEW_GOOD_PIXELS = 128, 256
BITS = {
    NO_GOOD_PIXEL: "no good pixel in the spectrum",
    FEW_GOOD_PIXELS: "less than half of the pixels of the spectrum are good",
}
"""Bits of the column `flags`, and their meanings."""
FEW = 0.5
"""Fraction of good pixels below which `FEW_GOOD_PIXELS` is set."""
BINS = 16
"""Bins of the coarse spectrum in `summary_features`."""
SEGMENTS = 4
"""Segments of the wavelength range in `states`."""


@dataclass(frozen=True)
class Spectra(Batch):
    """Spectra on a common wavelength grid.

    flux, ivar : (n, pixels) float32, flux density and inverse variance in the unit of the survey; 0 in masked pixels.
    sn : (n,) float32, median signal-to-noise ratio of the good pixels; NaN without any.
    good : (n,) float32, fraction of the pixels that are good.
    grid : vacuum wavelengths; `grid.wavelength` has (pixels) in angstrom.
    """

    SHARED = ("grid",)

    flux: NDArray[np.float32]
    ivar: NDArray[np.float32]
    sn: NDArray[np.float32]
    good: NDArray[np.float32]
    grid: WavelengthGrid

    @classmethod
    def of(cls, flux: NDArray[np.float32], ivar: NDArray[np.float32], grid: WavelengthGrid) -> Self:
        """Spectra with the ratios and fractions of their pixels; pixels with `ivar` 0 are masked."""
        flux = np.where(ivar > 0, flux, np.float32(0))
        return cls(flux, ivar, median_sn(flux, ivar), good_fraction(ivar), grid)

    def with_pixels(self, flux: NDArray[np.float32], ivar: NDArray[np.float32]) -> Self:
        """The rows with other pixels."""
        return self.of(flux, ivar, self.grid)

    def noisier(self, factor: float, rng: np.random.Generator) -> Self:
        good = self.ivar > 0
        error = np.divide(1, np.sqrt(self.ivar), out=np.zeros_like(self.ivar), where=good)
        drawn = rng.standard_normal(self.flux.shape, np.float32)
        flux = self.flux + np.float32(factor) * error * drawn
        return self.with_pixels(flux, self.ivar / np.float32(1 + factor**2))

    def brightness(self) -> NDArray[np.float32]:
        return self.sn

    def summary_features(self) -> NDArray[np.float64]:
        """(n, 17) the spectrum in 16 bins, as a fraction of its level, and the logarithm of its signal-to-noise ratio."""
        values = self.flux / level(self.flux, self.ivar)[:, None]
        with np.errstate(invalid="ignore"):
            ratio = np.log10(np.maximum(self.sn.astype(np.float64), 0.01))
        return np.column_stack([bin_means(values, (self.ivar > 0).astype(np.float32), BINS), ratio])

    @property
    def feature_names(self) -> list[str]:
        ends = self.grid.wavelength[np.linspace(0, len(self.grid) - 1, BINS + 1).astype(int)]
        return [f"flux at {(a + b) / 2:.0f} angstrom" for a, b in pairwise(ends)] + ["log S/N"]

    def flags(self) -> NDArray[np.int32]:
        few = np.where(self.good < FEW, np.int32(FEW_GOOD_PIXELS), np.int32(0))
        return np.where(self.good > 0, few, np.int32(NO_GOOD_PIXEL | FEW_GOOD_PIXELS))

    def constants(self) -> dict[str, tuple[float, int]]:
        measured = self[self.good > 0]
        if len(measured) < 2 or not (measured.flux == measured.flux[0]).all():
            return {}
        return {"the spectrum": (float(np.median(measured.flux[0])), len(measured))}

    def states(self) -> dict[str, NDArray[np.int32]]:
        """Segments of the wavelength range of which less than half of the pixels are good."""
        good = bin_means((self.ivar > 0).astype(np.float32), np.ones(self.ivar.shape, np.float32), SEGMENTS)
        return {"masked": ((good < FEW) << np.arange(SEGMENTS)).sum(axis=1).astype(np.int32)}

    @property
    def parts(self) -> tuple[str, ...]:
        ends = self.grid.wavelength[np.linspace(0, len(self.grid) - 1, SEGMENTS + 1).astype(int)]
        return tuple(f"{a:.0f}-{b:.0f}" for a, b in pairwise(ends))


def good_fraction(ivar: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) fraction of the pixels that are good."""
    return (ivar > 0).mean(axis=1, dtype=np.float32)
