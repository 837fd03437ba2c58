"""The simulated patch of sky, its coordinates, and smooth random maps of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DEGREES_PER_SPHERE = 41_252.96


@dataclass(frozen=True)
class Field:
    """A patch of `width` by `height` degrees around (ra, dec), in a sinusoidal (equal-area) projection.

    The default center is at RA = 0 and at a declination where three of the twelve base pixels of HEALPix meet, so that the
    demo covers these special cases.
    """

    width: float
    height: float
    ra: float = 0.0
    dec: float = -41.81

    @classmethod
    def of_area(cls, area: float) -> Field:
        """A patch of `area` square degrees, 4 wide by 3 high."""
        return cls(width=float(np.sqrt(area * 4 / 3)), height=float(np.sqrt(area * 3 / 4)))

    @property
    def area(self) -> float:
        """Square degrees."""
        return self.width * self.height

    @property
    def sky_fraction(self) -> float:
        """Fraction of the sphere."""
        return self.area / DEGREES_PER_SPHERE

    def scatter(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        """n positions x, y in degrees from the lower corner, uniform in area."""
        return rng.uniform(0, self.width, n), rng.uniform(0, self.height, n)

    def sky(self, x: Array, y: Array) -> tuple[Array, Array]:
        """(ra, dec) in degrees, 0 <= ra < 360, of positions in the patch."""
        dec = self.dec + y - self.height / 2
        ra = self.ra + (x - self.width / 2) / np.cos(np.radians(dec))
        return np.mod(ra, 360.0), dec


def smooth_map(rng: np.random.Generator, x: Array, y: Array, scale: float, modes: int = 40) -> Array:
    """A smooth Gaussian random field of mean 0 and variance 1: a sum of plane waves with wavelengths of about `scale` degrees."""
    angle, phase = rng.uniform(0, 2 * np.pi, (2, modes))
    wavenumber = 2 * np.pi / scale * rng.lognormal(-0.3, 0.5, modes)
    kx, ky = wavenumber * np.cos(angle), wavenumber * np.sin(angle)
    total = np.zeros_like(x)
    for mode in range(modes):
        total += np.cos(kx[mode] * x + ky[mode] * y + phase[mode])
    return total * np.sqrt(2 / modes)


def offset(ra: Array, dec: Array, east: Array, north: Array) -> tuple[Array, Array]:
    """Positions shifted by small offsets in arcsec."""
    shifted = dec + north / 3600
    return np.mod(ra + east / 3600 / np.cos(np.radians(dec)), 360.0), shifted
