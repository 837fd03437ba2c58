"""Light profiles of galaxies, the point-spread function and the pixel, as Fourier transforms at wavenumbers in radians per arcsec.

Transforms are 1 at wavenumber 0: profiles have unit flux, of which none is cut off at large radii.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fht, fhtoffset
from scipy.interpolate import RegularGridInterpolator
from scipy.special import gammainc, gammaincinv

Array = NDArray[np.float64]

INDICES = np.arange(1.0, 4.01, 0.5)
"""Sersic indices that profiles are tabulated at."""
LOG_K = np.linspace(-7.0, 8.0, 1501)
"""Natural logarithm of the wavenumber times the half-light radius at which profiles are tabulated."""
KOLMOGOROV = 0.9758634299
"""FWHM of the Kolmogorov profile in units of wavelength / Fried parameter."""
EXPONENTIAL = 1.6783469900166605
"""Half-light radius of an exponential disc in units of its scale length."""
RATIOS = np.linspace(-1.5, 0.3, 46)
"""log10 of the ratio of the half-light radii of bulge and disc at which `disc_size` is tabulated."""


@cache
def sersic() -> Array:
    """(indices, k) transforms of Sersic profiles of half-light radius 1, at `INDICES` and exp(`LOG_K`).

    I(r) ~ exp(-b r^(1/n)), where b makes half of the flux lie within r = 1. The Hankel transform of order 0 is computed on a logarithmic
    grid (Hamilton 2000, FFTLog; `scipy.fft.fht`).
    """
    step, points, bias = 0.01, 8192, -0.5
    r = np.exp(step * (np.arange(points) - points // 2))
    table = np.empty((len(INDICES), len(LOG_K)))
    for row, n in enumerate(INDICES):
        b = gammaincinv(2 * n, 0.5)
        profile = np.exp(-b * r ** (1 / n))
        offset = fhtoffset(step, mu=0, bias=bias)
        k = np.exp(offset) / r[::-1]
        transform = fht(profile * r, step, mu=0, offset=offset, bias=bias) / k
        norm = np.trapezoid(profile * r**2, np.log(r))
        table[row] = np.interp(LOG_K, np.log(k), transform / norm)
    return table


def kolmogorov(k: Array, fwhm: Array) -> Array:
    """Transform of the long-exposure seeing of Kolmogorov turbulence (Fried 1966): exp(-3.44 (k / 2 pi lambda / r0)^(5/3)).

    Parameters
    ----------
    k : wavenumbers.
    fwhm : arcsec, of a shape that broadcasts with `k`.
    """
    return np.exp(-3.4419 * (k / (2 * np.pi) * (fwhm / KOLMOGOROV)) ** (5 / 3))


@cache
def _disc_sizes() -> RegularGridInterpolator:
    """Half-light radius of the disc in units of that of the galaxy, by bulge fraction, log10 of the ratio of radii, and Sersic index."""
    fraction = np.linspace(0, 1, 41)
    radius = np.geomspace(1e-3, 1e3, 3001)
    x = EXPONENTIAL * radius
    disc = 1 - (1 + x) * np.exp(-x)
    table = np.empty((len(fraction), len(RATIOS), len(INDICES)))
    for column, n in enumerate(INDICES):
        b = gammaincinv(2 * n, 0.5)
        for row, ratio in enumerate(10**RATIOS):
            bulge = gammainc(2 * n, b * (radius / ratio) ** (1 / n))
            for number, part in enumerate(fraction):
                table[number, row, column] = 1 / np.interp(0.5, part * bulge + (1 - part) * disc, radius)
    return RegularGridInterpolator((fraction, RATIOS, INDICES), table)


def disc_size(bulge_fraction: Array, ratio: Array, index: Array) -> Array:
    """(n,) half-light radius of the disc in units of that of the galaxy.

    Parameters
    ----------
    bulge_fraction : (n,) fraction of the flux that is in the bulge.
    ratio : (n,) half-light radius of the bulge in units of that of the disc, from 0.032 to 2.
    index : (n,) Sersic index of the bulge, from 1 to 4.
    """
    return np.asarray(_disc_sizes()(np.stack([bulge_fraction, np.log10(ratio), index], axis=-1)))
