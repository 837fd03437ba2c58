"""A deep spectroscopic survey in scattered pointings, with flags in the style of VVDS and zCOSMOS."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.simulate.field import Field
from zmill.simulate.galaxies import I_BAND
from zmill.simulate.sky import QUASAR, STAR
from zmill.simulate.spectra import Targets, mistaken, pointed, spectroscopic, truth

Array = NDArray[np.float64]

POINTING = 0.18
"""Size of a pointing, degrees."""
COVERED = 0.5
"""Fraction of the pointings that were observed."""
BRIGHT_LIMIT, FAINT_LIMIT = 22.5, 24.3
"""Limits of the bright and the faint sample in i."""
SAMPLING_BRIGHT, SAMPLING_FAINT, SAMPLING_DISTANT = 0.45, 0.12, 0.35
"""Fraction of the objects that have a slit: bright ones, faint ones, and faint ones with the colors of z > 1, as in DEEP2."""
ASTROMETRY, SHIFT = 0.15, (-0.10, 0.08)
"""Scatter per axis and offset of the frame, arcsec."""
REDSHIFT_ERROR = 4e-4
"""Standard deviation in units of 1 + z: 55 to 110 km/s in zCOSMOS (Lilly et al. 2009) and 280 km/s in VVDS (Le Fevre et al. 2005)."""
WRONG = {0: 1.0, 1: 0.45, 2: 0.18, 3: 0.035, 4: 0.008, 9: 0.15}
"""Fraction of the redshifts that are wrong, per flag: Le Fevre et al. 2013, table 5; Lilly et al. 2009, sect. 4.3."""
NO_REDSHIFT = 9.9999


def covered(rng: np.random.Generator, field: Field, x: Array, y: Array) -> NDArray[np.bool_]:
    """(n,) whether a position lies in an observed pointing."""
    nx, ny = max(2, round(field.width / POINTING)), max(2, round(field.height / POINTING))
    observed = np.zeros(nx * ny, bool)
    observed[rng.permutation(nx * ny)[: max(1, round(COVERED * nx * ny))]] = True
    column = np.clip((x / field.width * nx).astype(int), 0, nx - 1)
    row = np.clip((y / field.height * ny).astype(int), 0, ny - 1)
    return np.asarray(observed[row * nx + column])


def distant(mag: Array) -> NDArray[np.bool_]:
    """(n,) whether a galaxy has the colors of z > 1, where the 4000 Angstrom break is redward of r."""
    _, g, r, i, z, _ = mag.T
    return np.asarray((g - r < 0.6) & (r - i < i - z + 0.1))


def flags(rng: np.random.Generator, i: Array, z: Array) -> NDArray[np.int64]:
    """(n,) flags 0-4 and 9 from the strength of the spectrum, which is lower for faint objects and in the redshift desert."""
    n = len(i)
    desert = np.interp(z, [0.0, 1.0, 1.4, 1.5, 2.1, 2.5], [0, 0.1, 0.4, 1.2, 0.9, 0.2])
    strength = (24.3 - i) - desert + rng.normal(0, 0.8, n)
    flag = np.select([strength > 2.0, strength > 1.0, strength > 0.2, strength > -0.5], [4, 3, 2, 1], 0)
    single_line = (z > 0.75) & (z < 1.45) & ((flag == 2) | (flag == 3)) & (rng.uniform(0, 1, n) < 0.3)
    return np.where(single_line, 9, flag)


def catalogue(rng: np.random.Generator, field: Field, targets: Targets) -> tuple[pa.Table, pa.Table]:
    """The catalogue, and the true objects of its entries."""
    sky = targets.sky
    i = sky.mag[:, I_BAND]
    faint = np.where(distant(sky.mag), SAMPLING_DISTANT, SAMPLING_FAINT)
    rate = np.where(i < BRIGHT_LIMIT, SAMPLING_BRIGHT, np.where(i < FAINT_LIMIT, faint, 0.0))
    rate = np.where(i < 17.0, 0.0, rate) * np.where(
        sky.kind == STAR, 0.15, 1.0
    )  # most stars are excluded by their shape
    rows = np.flatnonzero(covered(rng, field, sky.x, sky.y) & (rng.uniform(0, 1, len(sky)) < rate))
    sky, i, n = sky[rows], i[rows], len(rows)
    flag = flags(rng, i, sky.z)
    wrong = rng.uniform(0, 1, n) < np.array([WRONG.get(number, 0.0) for number in range(10)])[flag]
    z = np.where(wrong, mistaken(rng, sky.z), spectroscopic(rng, sky.z, REDSHIFT_ERROR))
    z = np.where(flag == 0, NO_REDSHIFT, z)
    secondary = rng.uniform(0, 1, n) < 0.02
    flag = flag + np.where((sky.kind == QUASAR) & (flag > 0), 10, 0) + np.where(secondary & (flag > 0), 20, 0)
    ra, dec = pointed(rng, sky, ASTROMETRY, SHIFT)
    entry = np.array([f"DF{number:06d}" for number in range(n)])
    table = pa.table(
        {
            "num": entry,
            "alpha": np.round(ra, 7),
            "delta": np.round(dec, 7),
            "z": np.round(z, 5),
            "zflag": flag.astype(np.int16),
            "iab": np.round(i + rng.normal(0, 0.03, n), 3),
        }
    )
    measured = np.where(flag == 0, np.nan, z)
    return table, truth("deep", entry, targets, rows, measured)
