"""Removal of parts of images: single bands, and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmill.inputs.degradation import AS_OBSERVED, Degradation
from zmill.inputs.image.batch import Images


@dataclass(frozen=True)
class ImagePattern:
    """A part of an image that is taken away.

    band : number of the band that is masked. noise : factor by which the errors grow.
    """

    name: str
    band: int | None = None
    noise: float = 1.0


class ImageDegradation(Degradation):
    """Removal of parts of images from rows."""

    def tests(self, rows: Images) -> list[ImagePattern]:  # type: ignore[override]
        bands = (
            [ImagePattern(f"without {band}", number) for number, band in enumerate(rows.bands)]
            if len(rows.bands) > 1
            else []
        )
        return [ImagePattern(AS_OBSERVED), *bands, ImagePattern("twice the noise", noise=2.0)]

    def concerns(self, rows: Images, pattern: ImagePattern) -> NDArray[np.bool_]:
        """(n,) whether the pattern changes the row and leaves a good pixel; True for all rows of the pattern as observed."""
        if pattern.name == AS_OBSERVED:
            return np.ones(len(rows), bool)
        good = np.asarray(rows.good_pixels.any(axis=(2, 3)))
        if pattern.band is None:
            return np.asarray(good.any(axis=1))
        others = np.delete(good, pattern.band, axis=1).any(axis=1)
        return np.asarray(good[:, pattern.band] & others)

    def apply(self, rows: Images, pattern: ImagePattern) -> Images:
        """The rows with the band masked, or with noise added; the same rows have the same noise each time."""
        if pattern.noise != 1:
            rows = rows.noisier(float(np.sqrt(pattern.noise**2 - 1)), np.random.default_rng(0))
        if pattern.band is None:
            return rows
        ivar = rows.ivar.copy()
        ivar[:, pattern.band] = 0
        return rows.with_pixels(rows.flux, ivar)
