"""Stars, on the stellar locus, and quasars."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from zmill import sed
from zmill.simulate.field import Field
from zmill.simulate.galaxies import BANDS

Array = NDArray[np.float64]

STAR_BRIGHTEST, STAR_SLOPE, STARS_TO_21 = 14.0, 0.12, 2600.0
"""Stars per square degree at high galactic latitude: about 2600 to i = 21, growing as 10^(0.12 i)."""
QUASARS_TO_22, QUASAR_SLOPE = 120.0, 0.30
"""Quasars per square degree to i = 22 (Palanque-Delabrouille et al. 2016 count 170 to g = 22.5)."""


def stars(rng: np.random.Generator, field: Field, faintest_i: float) -> Array:
    """(n, 6) ugrizy magnitudes of the stars of a patch of sky.

    g-r follows from r-i by the locus of Juric et al. 2008, eq. 4; u-g from g-r, and i-z and z-y from r-i, by median
    colors after Covey et al. 2007, table 3. The stars are halo stars near the main-sequence turn-off and M dwarfs of the disk.
    """
    i = _power_law(rng, STARS_TO_21 * field.area, 21.0, STAR_BRIGHTEST, faintest_i, STAR_SLOPE)
    n = len(i)
    dwarf = rng.uniform(0, 1, n) < np.interp(i, [14, 18, 21, 24], [0.25, 0.45, 0.65, 0.7])
    halo = np.clip(rng.gamma(4.0, 0.035, n) + 0.02, -0.1, 0.6)
    r_i = np.where(dwarf, np.clip(rng.normal(1.15, 0.35, n), 0.4, 2.2), halo)
    g_r = 1.39 * (1 - np.exp(-4.9 * r_i**3 - 2.45 * r_i**2 - 1.68 * r_i - 0.050))
    u_g = np.interp(
        g_r, [-0.2, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.39], [1.1, 1.06, 0.97, 0.95, 1.08, 1.3, 1.5, 1.9, 2.3, 2.5, 2.65]
    )  # fmt: skip
    i_z = np.interp(r_i, [0.0, 0.1, 0.2, 0.4, 1.0, 2.2], [-0.04, 0.03, 0.09, 0.22, 0.55, 1.15])
    color = np.stack([u_g, g_r, r_i, i_z, 0.5 * i_z], axis=1)
    color += rng.normal(0, [0.06, 0.03, 0.02, 0.02, 0.02], (n, 5))
    r = i + color[:, 2]
    g = r + color[:, 1]
    return np.stack([g + color[:, 0], g, r, i, i - color[:, 3], i - color[:, 3] - color[:, 4]], axis=1)


def quasars(rng: np.random.Generator, field: Field, faintest_i: float) -> tuple[Array, Array]:
    """Redshifts (n,) and ugrizy magnitudes (n, 6) of the quasars of a patch of sky."""
    i = _power_law(rng, QUASARS_TO_22 * field.area, 22.0, 16.0, faintest_i, QUASAR_SLOPE)
    z = np.clip(0.2 + rng.gamma(3.5, 0.42, len(i)), 0.2, 3.9)
    grid, table = _quasar_colors()
    slope = np.clip(rng.normal(1.0, 0.35, len(i)), 0, 2)  # 0 for a blue continuum, 2 for a red one
    magnitude = sed.ab_magnitude(np.maximum(sed.interpolate_types(table, grid, z, slope), 1e-12))
    return z, magnitude + (i - magnitude[:, BANDS.index("i")])[:, None]


LINES = np.array(
    [[1033.0, 9.8, 30], [1216.0, 92.9, 22], [1397.8, 8.1, 14], [1546.2, 23.8, 14], [1905.9, 21.2, 24], [2800.3, 32.3, 35],
     [4340.5, 12.6, 25], [4862.7, 46.2, 40], [5008.2, 13.2, 6], [6564.9, 194.5, 47]]
)  # fmt: skip
"""Broad lines of the composite quasar: wavelength, equivalent width, width (Angstrom), Vanden Berk et al. 2001, table 2."""


@cache
def _quasar_colors() -> tuple[Array, Array]:
    wavelength = np.arange(600.0, 12_000.0, 2.0)
    lines = np.zeros_like(wavelength)
    for center, width, sigma in LINES:
        lines += width * np.exp(-0.5 * ((wavelength - center) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    # f_nu ~ nu^alpha, alpha = -0.1, -0.5 and -1.1 around the -0.44 of the composite; f_lambda ~ lambda^(-2 - alpha)
    shapes = [1e-17 * (wavelength / 3000) ** (-2 - alpha) * (1 + lines) for alpha in (-0.1, -0.5, -1.1)]
    spectra = sed.Spectra(("blue", "mean", "red"), wavelength, np.stack(shapes))
    grid = np.linspace(0.15, 4.0, 300)
    return grid, sed.flux_table(spectra, sed.load_filters([f"lsst2023-{band}" for band in BANDS]), grid)


def _power_law(
    rng: np.random.Generator, number: float, limit: float, brightest: float, faintest: float, slope: float
) -> Array:
    """Magnitudes between two limits, with cumulative counts proportional to 10^(slope m) and on average `number` down to `limit`."""

    def counts(m: float) -> float:
        return 10 ** (slope * m) - 10 ** (slope * brightest)

    n = rng.poisson(number * counts(faintest) / counts(limit))
    return np.asarray(np.log10(10 ** (slope * brightest) + rng.uniform(0, counts(faintest), n)) / slope)
