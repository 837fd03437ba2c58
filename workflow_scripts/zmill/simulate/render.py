"""Stamps of galaxies, rendered in Fourier space: bulge and disc once per galaxy, then the fluxes and the seeing of each band.

The product of the transforms of galaxy, seeing and pixel is sampled on the wavenumbers of a field larger than the stamp, so that the light
which leaves the field on one side and enters it on the other is below 10^-3 of the galaxy's (`tests/simulate/test_render.py` holds it
against GalSim). Seeing and pixel must be sampled: FWHM above two pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2

from zmill.simulate import profiles

Array = NDArray[np.float64]
Image = NDArray[np.float32]

BULGE, DISC = 0, 1
LARGEST = 512
"""Largest number of pixels on a side of the field."""
WINGS = (3.0, 5.0, 6.0)
"""Number of half-light radii on each side of the stamp that the field must hold: of discs, and of bulges of Sersic index 1 and 4."""


@dataclass(frozen=True)
class Sources:
    """m galaxies in stamps.

    stamp : (m,) number of the stamp, ascending.
    x, y : (m,) arcsec from the center of the stamp, to higher columns and rows.
    flux : (m, 2, b) fluxes of bulge and disc in each band.
    radius, axis_ratio : (m, 2) half-light radius on the major axis in arcsec, and ratio of the axes, of bulge and disc.
    angle : (m,) angle from the x to the major axis, radians.
    index : (m,) Sersic index of the bulge; discs are exponential.
    """

    stamp: NDArray[np.int64]
    x: Array
    y: Array
    flux: Array
    radius: Array
    axis_ratio: Array
    angle: Array
    index: Array

    def __len__(self) -> int:
        return len(self.stamp)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Sources:
        return Sources(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True)
class _Grid:
    """Wavenumbers of a field of m pixels: kx (m / 2 + 1,), ky (m, 1), k^(5/3) and the transform of the pixel (m, m / 2 + 1)."""

    kx: NDArray[np.float32]
    ky: NDArray[np.float32]
    seeing: NDArray[np.float32]
    pixel: NDArray[np.float32]


@lru_cache(maxsize=16)
def _grid(m: int, pixel_scale: float) -> _Grid:
    kx = 2 * np.pi * np.fft.rfftfreq(m, pixel_scale)
    ky = 2 * np.pi * np.fft.fftfreq(m, pixel_scale)[:, None]
    pixel = np.sinc(kx * pixel_scale / (2 * np.pi)) * np.sinc(ky * pixel_scale / (2 * np.pi))
    seeing = np.hypot(kx, ky) ** (5 / 3)
    return _Grid(*(part.astype(np.float32) for part in (kx, ky, seeing, pixel)))


def render(sources: Sources, stamps: int, size: int, pixel_scale: float, fwhm: Array) -> Image:
    """Noiseless stamps.

    Parameters
    ----------
    sources : galaxies, in any of the stamps.
    stamps : their number n.
    size : pixels on a side of a stamp.
    pixel_scale : arcsec.
    fwhm : (n, b) FWHM of the seeing in each band, arcsec.

    Returns
    -------
    (n, b, size, size) flux per pixel, in the unit of the galaxies' fluxes.
    """
    bands = fwhm.shape[1]
    out = np.zeros((stamps, bands, size, size), np.float32)
    ends = np.searchsorted(sources.stamp, np.arange(stamps + 1))
    reach = _reach(sources)
    for stamp in range(stamps):
        first, last = ends[stamp], ends[stamp + 1]
        if first == last:
            continue
        m = _field(size, reach[first:last].max() / pixel_scale)
        grid = _grid(m, pixel_scale)
        total = np.zeros((bands, m, m // 2 + 1), np.complex64)
        for row in range(first, last):
            _add(total, sources, row, grid, size, pixel_scale)
        for band in range(bands):
            # exp(-(k s)^(5/3)), as in `profiles.kolmogorov`
            steepness = np.float32(3.4419 * (fwhm[stamp, band] / (2 * np.pi * profiles.KOLMOGOROV)) ** (5 / 3))
            total[band] *= np.exp(-steepness * grid.seeing) * grid.pixel
        out[stamp] = irfft2(total, s=(m, m), overwrite_x=True)[:, :size, :size]
    return out


def _reach(sources: Sources) -> Array:
    """(m,) arcsec on each side of the stamp that the field must hold."""
    disc, low, high = WINGS
    bulge = low + (high - low) * (sources.index - 1) / 3
    return np.maximum(bulge * sources.radius[:, BULGE], disc * sources.radius[:, DISC])


def _field(size: int, reach: float) -> int:
    """Pixels on a side of the field: the stamp's times a power of 2."""
    m = 2 * size
    while m < size + reach and 2 * m <= LARGEST:
        m *= 2
    return m


def _add(total: NDArray[np.complex64], sources: Sources, row: int, grid: _Grid, size: int, pixel_scale: float) -> None:
    """Add a galaxy's transform in each band to those of its stamp."""
    cos, sin = np.float32(np.cos(sources.angle[row])), np.float32(np.sin(sources.angle[row]))
    major, minor = grid.kx * cos + grid.ky * sin, grid.ky * cos - grid.kx * sin
    major *= major
    minor *= minor
    bulge, disc = (
        np.float32(sources.radius[row, part] ** 2) * (major + np.float32(sources.axis_ratio[row, part] ** 2) * minor)
        for part in (BULGE, DISC)
    )
    shape = _table(bulge, sources.index[row]), (1 + disc / np.float32(profiles.EXPONENTIAL**2)) ** np.float32(-1.5)
    # the first pixel is (size - 1) / 2 pixels from the center of the stamp
    edge = pixel_scale * (size - 1) / 2
    phase = np.exp(-1j * grid.ky * np.float32(sources.y[row] + edge)) * np.exp(
        -1j * grid.kx * np.float32(sources.x[row] + edge)
    )
    for part in (BULGE, DISC):
        part_of = shape[part] * phase
        for band, flux in enumerate(sources.flux[row, part]):
            if flux:
                total[band] += np.float32(flux) * part_of


@lru_cache(maxsize=len(profiles.INDICES))
def _steps(number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Values of a Sersic transform, and their differences to the next."""
    values = profiles.sersic()[number]
    return values.astype(np.float32), np.append(np.diff(values), 0).astype(np.float32)


def _table(square: NDArray[np.float32], index: float) -> NDArray[np.float32]:
    """Transform of the tabulated Sersic profile nearest to `index` at the squares of wavenumbers times half-light radii."""
    values, steps = _steps(int(np.argmin(np.abs(profiles.INDICES - index))))
    start, step = profiles.LOG_K[0], profiles.LOG_K[1] - profiles.LOG_K[0]
    place = np.log(np.maximum(square, np.float32(1e-30))) * np.float32(0.5 / step) - np.float32(start / step)
    place = np.clip(place, 0, len(values) - 1.001, out=place)
    at = place.astype(np.int32)
    place -= at
    return values[at] + place * steps[at]
