"""The true sky: position, class, redshift, size and magnitudes of every object."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from zmill.simulate import clustering, galaxies, stars
from zmill.simulate.field import Field, smooth_map

Array = NDArray[np.float64]

GALAXY, STAR, QUASAR = 0, 1, 2
EXTINCTION = np.array([4.81, 3.64, 2.70, 2.06, 1.58, 1.31])
"""A / E(B-V) of dust in the Milky Way, for LSST ugrizy."""
SPECTRAL_SCATTER = 0.015
"""Standard deviation in magnitudes, per band, by which real spectra differ from mixtures of templates."""
UNRESOLVED_ARCSEC = 0.6
"""Objects closer than this are one detection, with the flux of both."""
MARGIN = 0.4
"""Objects are simulated down to this many magnitudes below the limit of the survey, because noise brightens some above it."""


@dataclass(frozen=True)
class Sky:
    """n objects above the detection limit, in random order.

    ra, dec : (n,) degrees.
    x, y : (n,) degrees within the field.
    kind : (n,) GALAXY, STAR or QUASAR.
    z : (n,) true redshift; 0 for stars.
    type, dust : (n,) spectral type and E(B-V) of galaxies; NaN for the rest.
    red : (n,) whether a galaxy is of the red population.
    group : (n,) number of the group of galaxies, -1 for none.
    radius, axis_ratio : (n,) half-light radius on the major axis in arcsec; ratio of minor to major axis.
    ebv : (n,) E(B-V) of the Milky Way.
    mag : (n, 6) AB magnitudes without extinction by the Milky Way.
    """

    ra: Array
    dec: Array
    x: Array
    y: Array
    kind: NDArray[np.int8]
    z: Array
    type: Array
    dust: Array
    red: NDArray[np.bool_]
    group: NDArray[np.int64]
    radius: Array
    axis_ratio: Array
    ebv: Array
    mag: Array

    def __len__(self) -> int:
        return len(self.ra)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Sky:
        return Sky(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @property
    def reddened(self) -> Array:
        """(n, 6) observed magnitudes, with extinction by the Milky Way."""
        return self.mag + EXTINCTION * self.ebv[:, None]


def make(rng: np.random.Generator, field: Field, faintest_i: float) -> Sky:
    """Make all objects of a patch, down to `MARGIN` below an i magnitude."""
    limit = faintest_i + MARGIN
    drawn = galaxies.draw(rng, field, limit)
    x, y, z, group = clustering.positions(rng, field, drawn.z, -drawn.mag_abs, drawn.red)
    sample = galaxies.Galaxies(z, drawn.mag_abs, drawn.type, drawn.dust, drawn.log_size, drawn.red)
    n = len(sample)
    galaxy_mag = galaxies.magnitudes(sample) + rng.normal(0, SPECTRAL_SCATTER, (n, 6))
    kpc_per_arcsec = galaxies.comoving_distance(z) / (1 + z) * 1e3 * np.radians(1 / 3600)
    star_mag = stars.stars(rng, field, limit)
    quasar_z, quasar_mag = stars.quasars(rng, field, limit)
    points = len(star_mag) + len(quasar_z)
    point_x, point_y = field.scatter(rng, points)
    x, y = np.concatenate([x, point_x]), np.concatenate([y, point_y])
    ra, dec = field.sky(x, y)
    unknown = np.full(points, np.nan)
    sky = Sky(
        ra=ra,
        dec=dec,
        x=x,
        y=y,
        kind=np.repeat(np.array([GALAXY, STAR, QUASAR], np.int8), [n, len(star_mag), len(quasar_z)]),
        z=np.concatenate([z, np.zeros(len(star_mag)), quasar_z]),
        type=np.concatenate([sample.type, unknown]),
        dust=np.concatenate([sample.dust, unknown]),
        red=np.concatenate([sample.red, np.zeros(points, bool)]),
        group=np.concatenate([group, np.full(points, -1)]),
        radius=np.concatenate([np.minimum(10**sample.log_size / kpc_per_arcsec, 20.0), np.full(points, 1e-3)]),
        axis_ratio=np.concatenate([np.clip(rng.normal(0.65, 0.18, n), 0.15, 1.0), np.ones(points)]),
        ebv=0.025 * np.exp(0.5 * smooth_map(rng, x, y, scale=0.8)),
        mag=np.concatenate([galaxy_mag, star_mag, quasar_mag]),
    )
    return _blended(sky[rng.permutation(len(sky))])


def _blended(sky: Sky) -> Sky:
    """The sky with unresolved pairs blended: the flux of the fainter object is added to the brighter."""
    plane = np.stack([sky.x, sky.y], axis=1) * 3600
    pairs = cKDTree(plane).query_pairs(UNRESOLVED_ARCSEC, output_type="ndarray")
    i_band = sky.mag[:, galaxies.I_BAND]
    first_brighter = i_band[pairs[:, 0]] <= i_band[pairs[:, 1]]
    bright = np.where(first_brighter, pairs[:, 0], pairs[:, 1])
    faint = np.where(first_brighter, pairs[:, 1], pairs[:, 0])
    flux = 10 ** (-0.4 * sky.mag)
    order = np.argsort(-i_band[faint], kind="stable")  # the faintest first, so that a chain ends in its brightest
    for into, gone in zip(bright[order], faint[order], strict=True):
        flux[into] += flux[gone]
    kept = np.ones(len(sky), bool)
    kept[faint] = False
    blended = Sky(**{**{f.name: getattr(sky, f.name) for f in fields(sky)}, "mag": -2.5 * np.log10(flux)})
    return blended[kept]
