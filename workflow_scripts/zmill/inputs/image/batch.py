"""Stamps in memory, and what is measured in their apertures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from zmill.inputs.base import Batch

NO_IMAGE, FEW_GOOD_PIXELS, AT_EDGE = 1024, 2048, 4096
BITS = {
    NO_IMAGE: "no image",
    FEW_GOOD_PIXELS: "less than half of the pixels of the image are good",
    AT_EDGE: "the stamp reaches beyond the edge of its image",
}
"""Bits of the column `flags`, and their meanings."""
FEW = 0.5
"""Fraction of good pixels below which `FEW_GOOD_PIXELS` is set, and below which a band counts as masked."""
APERTURE, CORE = 4, 8
"""Radius of the aperture and of its core: the size of the stamp divided by these."""

Array = NDArray[np.float32]


class Aperture(NamedTuple):
    """Sums over good pixels within a radius: flux, variance (n, bands) float64; NaN in bands without half of the pixels."""

    flux: NDArray[np.float64]
    variance: NDArray[np.float64]


@dataclass(frozen=True)
class Images(Batch):
    """Stamps of one shape.

    flux : (n, bands, size, size) float32, in the unit of the survey; 0 in masked pixels.
    ivar : (n, bands, size, size) or, one per band, (n, bands, 1, 1) float32, inverse variance of the flux; 0 is the mask. With one per
        band, single pixels are masked where their flux is exactly 0.
    psf : (n, bands) float32, full width at half maximum of the point spread function in arcsec; NaN where unknown.
    sn : (n,) float32, signal-to-noise ratio of the sum of the bands in the aperture; NaN without good pixels there.
    good : (n,) float32, fraction of the pixels that are good; 0 without an image.
    edge : (n,) bool, the stamp reaches beyond the edge of its image.
    ebv : (n,) float32, E(B-V) in magnitudes; NaN where unknown.
    bands, size, pixel_scale : names of the planes, pixels on a side, width of a pixel in arcsec.
    """

    SHARED = ("bands", "size", "pixel_scale")

    flux: Array
    ivar: Array
    psf: Array
    sn: Array
    good: Array
    edge: NDArray[np.bool_]
    ebv: Array
    bands: tuple[str, ...]
    size: int
    pixel_scale: float

    def with_pixels(self, flux: Array, ivar: Array) -> Self:
        """The rows with other pixels of the same shape; what is measured in them is measured again."""
        pixels = good_pixels(flux, ivar)
        flux = np.where(pixels, flux, np.float32(0))
        arrays = {"flux": flux, "ivar": ivar, "sn": aperture_sn(flux, ivar), "good": good_fraction(pixels)}
        return self.with_arrays(self.arrays | arrays)

    @property
    def good_pixels(self) -> NDArray[np.bool_]:
        """(n, bands, size, size) whether a pixel is measured."""
        return good_pixels(self.flux, self.ivar)

    def noisier(self, factor: float, rng: np.random.Generator) -> Self:
        error = np.divide(1, np.sqrt(self.ivar), out=np.zeros_like(self.ivar), where=self.ivar > 0)
        drawn = rng.standard_normal(self.flux.shape, np.float32)
        flux = np.where(self.good_pixels, self.flux + np.float32(factor) * error * drawn, np.float32(0))
        return self.with_pixels(flux, self.ivar / np.float32(1 + factor**2))

    def brightness(self) -> Array:
        return self.sn

    def summary_features(self) -> NDArray[np.float64]:
        """(n, bands + 1) colors of neighboring bands in the aperture, concentration, and the logarithm of the signal-to-noise ratio.

        Colors are differences of asinh magnitudes, whose softening is twice the larger error of the two bands (Lupton et al. 1999): that of
        faint rows tends to 0. The concentration compares the core with the aperture in the same way.
        """
        outer = aperture(self.flux, self.ivar, APERTURE)
        colors = [
            _asinh_color(outer.flux[:, [one]], outer.flux[:, [two]], outer.variance[:, [one, two]])
            for one, two in pairwise(range(len(self.bands)))
        ]
        core = aperture(self.flux, self.ivar, CORE)
        sums = [
            np.where(np.isfinite(part).any(axis=1), np.nansum(part, axis=1), np.nan)[:, None]
            for part in (core.flux, outer.flux, outer.variance)
        ]
        concentration = _asinh_color(sums[0], sums[1], sums[2])
        with np.errstate(invalid="ignore"):
            ratio = np.log10(np.maximum(self.sn.astype(np.float64), 0.01))
        return np.column_stack([*colors, concentration, ratio])

    @property
    def feature_names(self) -> list[str]:
        return [f"image {one}-{two}" for one, two in pairwise(self.bands)] + ["image concentration", "log image S/N"]

    def flags(self) -> NDArray[np.int32]:
        few = np.where(self.good < FEW, np.int32(FEW_GOOD_PIXELS), np.int32(0))
        edge = np.where(self.edge, np.int32(AT_EDGE), np.int32(0))
        return np.where(self.good > 0, few | edge, np.int32(NO_IMAGE | FEW_GOOD_PIXELS))

    def constants(self) -> dict[str, tuple[float, int]]:
        found = {}
        for number, band in enumerate(self.bands):
            planes = self.flux[self.good_pixels[:, number].any(axis=(1, 2)), number]
            if len(planes) > 1 and (planes == planes[0]).all():
                found[f"the image in {band}"] = (float(np.median(planes[0])), len(planes))
        return found

    def states(self) -> dict[str, NDArray[np.int32]]:
        """Bands of which less than half of the pixels are good."""
        good = self.good_pixels.mean(axis=(2, 3), dtype=np.float32)
        return {"masked": ((good < FEW) << np.arange(len(self.bands))).sum(axis=1).astype(np.int32)}

    @property
    def parts(self) -> tuple[str, ...]:
        return self.bands


def good_pixels(flux: Array, ivar: Array) -> NDArray[np.bool_]:
    """(n, bands, size, size) whether a pixel is measured. ivar : per pixel or per band, as `Images.ivar`."""
    if ivar.shape[2:] == flux.shape[2:]:
        return ivar > 0
    return (ivar > 0) & (flux != 0)


def good_fraction(pixels: NDArray[np.bool_]) -> Array:
    """(n,) fraction of the pixels that are good."""
    return pixels.mean(axis=(1, 2, 3), dtype=np.float32)


@lru_cache(maxsize=16)
def _disk(size: int, divisor: int) -> NDArray[np.bool_]:
    """(size, size) pixels within the radius size / divisor of the center, at least 1 pixel."""
    offset = np.arange(size) - (size - 1) / 2
    return np.asarray(np.hypot(offset[:, None], offset[None, :]) <= max(size / divisor, 1))


def aperture(flux: Array, ivar: Array, divisor: int = APERTURE) -> Aperture:
    """Sums within the radius size / divisor of the center.

    flux, ivar : as those of `Images`.
    """
    disk = _disk(flux.shape[-1], divisor)
    inside = flux[:, :, disk]  # (n, bands, pixels)
    if ivar.shape[2:] == flux.shape[2:]:
        weight = ivar[:, :, disk]
        good = weight > 0
        variance = np.divide(1.0, weight, out=np.zeros(weight.shape), where=good).sum(axis=2)
        count = np.count_nonzero(good, axis=2)
    else:
        weight = ivar[:, :, 0, 0].astype(np.float64)
        count = np.where(weight > 0, np.count_nonzero(inside, axis=2), 0)
        variance = np.divide(count, weight, out=np.zeros(weight.shape), where=weight > 0)
    enough = count >= FEW * inside.shape[2]
    total = inside.sum(axis=2, dtype=np.float64)
    return Aperture(np.where(enough, total, np.nan), np.where(enough, variance, np.nan))


def aperture_sn(flux: Array, ivar: Array) -> Array:
    """(n,) signal-to-noise ratio of the sum of the bands in the aperture; NaN where no band is measured there."""
    found = aperture(flux, ivar)
    variance = np.nansum(found.variance, axis=1)
    ratio = np.divide(
        np.nansum(found.flux, axis=1), np.sqrt(variance), out=np.full(len(flux), np.nan), where=variance > 0
    )
    return ratio.astype(np.float32)


def _asinh_color(
    one: NDArray[np.float64], other: NDArray[np.float64], variance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n, 1) difference of the asinh magnitudes of two fluxes (n, 1); NaN where one of them is."""
    soft = 2 * np.sqrt(variance.max(axis=1, keepdims=True))
    soft = np.where(soft > 0, soft, np.nan)
    return -2.5 / np.log(10) * (np.arcsinh(one / soft) - np.arcsinh(other / soft))
