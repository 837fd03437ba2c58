"""Bulges and discs of simulated galaxies: fractions, sizes, shapes, and an SED of each.

A galaxy of `zmill.simulate.galaxies` has a luminosity, a spectral type, dust and a half-light radius. Here, its B-band light is divided between a
bulge and a disc so that the mean type of both, weighted by their light, is that of the galaxy, and the half-light radius of both together is
that of the galaxy. The inclination of the disc changes its dust, and so the colors.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from zmill import sed
from zmill.simulate import profiles
from zmill.simulate.galaxies import Galaxies, colors, distance_modulus

Array = NDArray[np.float64]

TYPES = np.array([0.0, 0.5, 1.0, 2.0, 3.0])
BULGE_FRACTION = np.array([0.75, 0.5, 0.2, 0.07, 0.02])
"""Median fraction of the B-band light in the bulge at spectral types from El through Sbc and Scd to Im, after Simien & de Vaucouleurs 1986
(ApJ 302, 564): S0 0.6, Sa 0.41, Sb 0.24, Sbc 0.16, Sc 0.09, Scd 0.05. Ellipticals are given an envelope with an exponential profile."""
FRACTION_SCATTER = 0.8
"""Standard deviation of the logit of the bulge fraction."""
SIZE_RATIO, SIZE_SLOPE, SIZE_SCATTER = 0.13, 0.6, 0.15
"""Half-light radius of the bulge over that of the disc, where the bulge is small: 0.22 / 1.678, with a scatter of 0.15 dex (MacArthur, Courteau &
Holtzman 2003, ApJ 582, 689). It rises by 0.6 dex to galaxies that are all bulge."""
THICKNESS = 0.2
"""Axis ratio of a disc seen edge-on."""
FLATTENING = 0.4
"""Flattening of bulges in units of that of the disc."""
FACE_ON_DUST = 0.5
"""Dust of a disc seen face-on in units of `Galaxies.dust`, which is that of a random inclination."""
BULGE_DUST = 0.5
"""Dust of the bulge in units of that of the disc, half of which is behind it."""
BULGE_SCATTER, DISC_SCATTER = 0.01, 0.03
"""Standard deviation in magnitudes, per band, by which SEDs of bulges and discs differ from mixtures of templates: discs have more varied
histories and emission lines."""
YOUNG_BULGES = 0.15
"""Standard deviation of the spectral types of bulges in blue galaxies, above 0."""


@dataclass(frozen=True)
class Structure:
    """Bulges (0) and discs (1) of n galaxies.

    bulge_fraction : (n,) of the light in the rest-frame B band.
    type, dust : (n, 2) spectral type (0 El ... 7) and E(B-V).
    radius : (n, 2) half-light radius on the major axis, kpc.
    axis_ratio : (n, 2).
    angle : (n,) of the major axis, radians.
    index : (n,) Sersic index of the bulge.
    """

    bulge_fraction: Array
    type: Array
    dust: Array
    radius: Array
    axis_ratio: Array
    angle: Array
    index: Array

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Structure:
        return Structure(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def inclination_dust(mag_b: Array, axis_ratio: Array) -> Array:
    """(n,) E(B-V) by which inclined discs have more dust than discs seen face-on.

    Tully et al. 1998 (AJ 115, 2264): A_B = gamma log10(a / b), gamma = -0.35 (15.6 + M_B + 5 log10 h80), with E(B-V) = A_B / k_B of
    Calzetti's law.

    Parameters
    ----------
    mag_b : (n,) absolute B magnitudes, for H0 = 70.
    axis_ratio : (n,) of the discs.
    """
    gamma = np.maximum(-0.35 * (15.6 + mag_b + 5 * np.log10(70 / 80)), 0)
    return np.asarray(-gamma * np.log10(axis_ratio) / sed.calzetti(4400.0))


def draw(rng: np.random.Generator, galaxies: Galaxies) -> Structure:
    """Draw the bulges and discs of galaxies."""
    n = len(galaxies)
    median = np.interp(galaxies.type, TYPES, BULGE_FRACTION)
    logit = np.log(median / (1 - median)) + rng.normal(0, FRACTION_SCATTER, n)
    fraction = 1 / (1 + np.exp(-logit))

    bulge_type = np.where(galaxies.red, 0.6 * galaxies.type, np.abs(rng.normal(0, YOUNG_BULGES, n)))
    bulge_type = np.minimum(bulge_type, galaxies.type)
    # the types of bulge and disc, weighted by their light, have the galaxy's type as their mean
    disc_type = np.minimum((galaxies.type - fraction * bulge_type) / (1 - fraction), len(sed.BPZ_TEMPLATES) - 1)

    cosine = rng.uniform(0, 1, n)
    disc_ratio = np.sqrt(cosine**2 + THICKNESS**2 * (1 - cosine**2))
    bulge_ratio = 1 - FLATTENING * (1 - disc_ratio)
    added = np.where(galaxies.red, 0.0, inclination_dust(galaxies.mag_abs, disc_ratio))
    disc_dust = np.minimum(FACE_ON_DUST * galaxies.dust + added, sed.DUST[-1])

    index = np.clip(1.5 + 4 * fraction + rng.normal(0, 0.5, n), 1, 4)
    ratio = SIZE_RATIO * 10 ** (SIZE_SLOPE * fraction + rng.normal(0, SIZE_SCATTER, n))
    ratio = np.clip(ratio, 10 ** profiles.RATIOS[0], 10 ** profiles.RATIOS[-1])
    disc_radius = 10**galaxies.log_size * profiles.disc_size(fraction, ratio, index)
    return Structure(
        bulge_fraction=fraction,
        type=np.stack([bulge_type, disc_type], axis=1),
        dust=np.stack([BULGE_DUST * disc_dust, disc_dust], axis=1),
        radius=np.stack([ratio * disc_radius, disc_radius], axis=1),
        axis_ratio=np.stack([bulge_ratio, disc_ratio], axis=1),
        angle=rng.uniform(0, np.pi, n),
        index=index,
    )


def magnitudes(rng: np.random.Generator, galaxies: Galaxies, structure: Structure, filters: tuple[str, ...]) -> Array:
    """(n, 2, b) AB magnitudes of bulges and discs, without extinction by the Milky Way; at most 40."""
    table = colors(filters)
    light = np.stack([structure.bulge_fraction, 1 - structure.bulge_fraction], axis=1)
    out = np.empty((len(galaxies), 2, len(filters)))
    for part, scatter in enumerate((BULGE_SCATTER, DISC_SCATTER)):
        relative = table.fluxes(galaxies.z, structure.type[:, part], structure.dust[:, part])
        relative *= light[:, part, None] * 10 ** (-0.4 * rng.normal(0, scatter, relative.shape))
        out[:, part] = (galaxies.mag_abs + distance_modulus(galaxies.z))[:, None]
        out[:, part] -= 2.5 * np.log10(np.maximum(relative, 1e-12))
    return np.minimum(out, 40.0)
