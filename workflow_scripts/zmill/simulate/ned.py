"""A compilation with the columns of NED: redshifts of many sources, reliable and unreliable, some objects more than once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table
from numpy.typing import NDArray

from zmill.simulate.sky import GALAXY, QUASAR, STAR
from zmill.simulate.spectra import Targets, mistaken, pointed, spectroscopic, truth
from zmill.units import LIGHT_SPEED_KM_S

Array = NDArray[np.float64]

ASTROMETRY, SHIFT = 0.25, (0.0, 0.05)
"""Scatter per axis and offset of the frame, arcsec: optical, infrared and radio positions mixed."""
KINDS = {
    # zflag: (fraction of the entries, fraction of them that is wrong, error in units of 1 + z)
    "SLS ": (0.46, 0.006, 2e-4),
    "SUN ": (0.12, 0.015, 3e-4),
    "": (0.07, 0.03, 3e-4),
    "S1L ": (0.05, 0.15, 3e-4),
    "SLS?": (0.03, 0.20, 4e-4),
    "SLS:": (0.04, 0.08, 4e-4),
    "SUN:": (0.02, 0.12, 4e-4),
    ":": (0.01, 0.10, 5e-4),
    "1LIN": (0.01, 0.20, 4e-4),
    "PHOT": (0.08, 0.04, 3e-2),
    "PUN ": (0.05, 0.05, 4e-2),
    "SED": (0.02, 0.06, 5e-2),
    "EST": (0.01, 0.20, 6e-2),
    "MFA": (0.01, 0.10, 4e-2),
    "LUM": (0.01, 0.25, 8e-2),
    "slipped": (0.01, 0.04, 3e-2),
}
"""`slipped` is a photometric redshift with a blank flag, of which NED has a few."""
TYPES = ("G", "*", "QSO")
RARE_GALAXY_TYPES = ("RadioS", "IrS", "UvS", "XrayS", "GPair", "EmLS")
SEVERAL = 0.12
"""Fraction of the objects with two entries, under two names."""
WITHOUT_REDSHIFT = 0.03
"""Fraction of the entries without redshift, of which some have a velocity."""


def catalogue(rng: np.random.Generator, targets: Targets) -> tuple[Table, pa.Table]:
    """The catalogue with the columns of NEDTAP.objdir (and a velocity), and the true objects of its entries (clusters have none)."""
    sky = targets.sky
    r = sky.mag[:, 2]
    rate = np.select([r < 17.8, r < 19.8, r < 21.5], [0.85, 0.7, 0.12], 0.0)
    rate = np.where(sky.kind == STAR, 0.01, rate) * np.where(sky.kind == QUASAR, 0.6, 1.0)
    rows = np.flatnonzero(rng.uniform(0, 1, len(sky)) < rate)
    again = rows[rng.uniform(0, 1, len(rows)) < SEVERAL]
    rows = np.concatenate([rows, again])[rng.permutation(len(rows) + len(again))]
    sky, n = targets.sky[rows], len(rows)
    names = list(KINDS)
    share = np.array([KINDS[name][0] for name in names])
    pick = rng.choice(len(names), n, p=share / share.sum())
    chance_wrong, sigma = np.array([KINDS[name][1:] for name in names]).T[:, pick]
    wrong = (rng.uniform(0, 1, n) < chance_wrong) & (sky.kind != STAR)
    z = np.where(wrong, mistaken(rng, sky.z), spectroscopic(rng, sky.z, sigma))
    z = np.where(sky.kind == STAR, rng.normal(0, 4e-4, n), z)
    flag = np.array(names)[pick]
    flag[flag == "slipped"] = ""
    none = rng.uniform(0, 1, n) < WITHOUT_REDSHIFT
    flag[none] = ""
    kind = np.array(TYPES, dtype="U8")[sky.kind]
    rare = (sky.kind == GALAXY) & (rng.uniform(0, 1, n) < 0.04)
    kind[rare] = rng.choice(RARE_GALAXY_TYPES, rare.sum())
    ra, dec = pointed(rng, sky, ASTROMETRY, SHIFT)
    error = sigma * (1 + z) * rng.lognormal(0, 0.3, n)
    no_error = none | (rng.uniform(0, 1, n) < 0.15)
    prefix = rng.choice(["WISEA J", "2dFGRS J", "GALEXASC J", "SDSS J"], n, p=[0.5, 0.2, 0.1, 0.2])
    velocity = np.where(none & (rng.uniform(0, 1, n) < 0.4), np.nan, np.round(z * LIGHT_SPEED_KM_S))
    z = np.where(none, np.nan, z)
    galaxies = _table(prefix, ra, dec, z, np.where(no_error, np.nan, error), flag, kind, velocity)
    _, once = np.unique(np.asarray(galaxies["prefname"]), return_index=True)  # names are unique
    once.sort()
    galaxies, rows, z = galaxies[once], rows[once], z[once]
    known = truth("ned", np.asarray(galaxies["prefname"]), targets, rows, z)
    return _with_clusters(rng, galaxies, targets), known


def _with_clusters(rng: np.random.Generator, galaxies: Table, targets: Targets) -> Table:
    """The catalogue with an additional entry at the center of each rich group, in random order."""
    sky = targets.sky
    grouped = np.flatnonzero((sky.group >= 0) & (sky.z < 0.6))
    _, first, members = np.unique(sky.group[grouped], return_index=True, return_counts=True)
    rich = grouped[first[members >= 15]]
    center = sky[rich]
    n = len(rich)
    kind = np.where(rng.uniform(0, 1, n) < 0.5, "GClstr", "GGroup")
    z = spectroscopic(rng, center.z, 1e-3)
    ra, dec = pointed(rng, center, 0.2, (0.0, 0.0))
    clusters = _table(
        np.full(n, "CLUSTER J"),
        ra,
        dec,
        z,
        np.full(n, np.nan),
        np.full(n, "SLS "),
        kind,
        np.round(z * LIGHT_SPEED_KM_S),
    )
    joined = {name: np.ma.concatenate([galaxies[name], clusters[name]]) for name in galaxies.colnames}
    table = Table({name: MaskedColumn(values) for name, values in joined.items()})
    return table[rng.permutation(len(table))]


def _table(
    prefix: NDArray[np.str_],
    ra: Array,
    dec: Array,
    z: Array,
    error: Array,
    flag: NDArray[np.str_],
    kind: NDArray[np.str_],
    velocity: Array,
) -> Table:
    position = SkyCoord(ra, dec, unit="deg")
    east = position.ra.to_string(unit="hour", sep="", precision=2, pad=True)
    north = position.dec.to_string(unit="deg", sep="", precision=1, pad=True, alwayssign=True)
    name = np.char.add(np.char.add(prefix, np.asarray(east, dtype=str)), np.asarray(north, dtype=str))
    return Table(
        {
            "prefname": MaskedColumn(name.astype("U40")),
            "ra": MaskedColumn(ra, unit="deg"),
            "dec": MaskedColumn(dec, unit="deg"),
            "z": MaskedColumn(z, mask=~np.isfinite(z)),
            "zunc": MaskedColumn(error, mask=~np.isfinite(error)),
            "zflag": MaskedColumn(flag.astype("U8")),
            "prefphytype": MaskedColumn(kind.astype("U8")),
            "velocity": MaskedColumn(velocity, mask=~np.isfinite(velocity), unit="km/s"),
        }
    )
