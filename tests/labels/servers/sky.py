"""A small simulated sky of spectra, in the columns of SDSS, of NED's object directory and of a VizieR table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.table import Table

from zmill.catalog.footprint import ORDER, Footprint
from zmill.catalog.sky import HEALPIX_ORDER, healpix
from zmill.labels.base import Request

SEED = 3


def spectra(ra: float, dec: float, size: float, number: int) -> Table:
    """Galaxies, quasars and stars in a square of `size` degrees, good and bad ones."""
    rng = np.random.default_rng(SEED)
    east, north = rng.uniform(-size / 2, size / 2, (2, number))
    kind = rng.choice(["GALAXY", "QSO", "STAR"], number, p=[0.7, 0.1, 0.2])
    redshift = np.where(kind == "STAR", rng.normal(0, 2e-4, number), rng.gamma(3, 0.15, number))
    return Table(
        {
            "specObjID": 10_000_000_000_000_000_000 + np.arange(number, dtype=np.uint64) * 1024,
            "ra": (ra + east / np.cos(np.radians(dec))) % 360,
            "dec": dec + north,
            "z": redshift,
            "zErr": rng.choice([1e-5, 2e-4, 2e-3, 0.0], number, p=[0.4, 0.4, 0.15, 0.05]),
            "zWarning": rng.choice([0, 4, 16], number, p=[0.9, 0.05, 0.05]),
            "class": kind,
            "sciencePrimary": rng.choice([1, 0], number, p=[0.9, 0.1]),
        }
    )


def directory(sdss: Table) -> Table:
    """The same objects as NED would have them, and as many without a redshift."""
    number = len(sdss)
    rng = np.random.default_rng(SEED + 1)
    known = np.arange(2 * number) % 2 == 0
    twice = np.repeat(np.arange(number), 2)
    kind = np.array(["*" if one == "STAR" else "QSO" if one == "QSO" else "G" for one in sdss["class"]])
    flag = rng.choice(["SLS ", "S1L ", "PUN ", "SLS:", "", "PHOT"], 2 * number, p=[0.6, 0.1, 0.1, 0.05, 0.05, 0.1])
    table = Table(
        {
            "prefname": [f"ZMS J{number:06d}" for number in range(2 * number)],
            "ra": sdss["ra"][twice] + np.where(known, 0, 1e-3),
            "dec": np.clip(sdss["dec"][twice] + np.where(known, 0, 1e-3), -90, 90),
            "z": np.where(known, sdss["z"][twice], np.nan),
            "zunc": np.where(known, sdss["zErr"][twice], np.nan),
            "zflag": np.where(known, flag, ""),
            "prefphytype": np.where(known, kind[twice], "G"),
        }
    )
    return table


def make_request(folder: Path, ra: float, dec: float, size: float) -> Request:
    """The request of a survey that fills a square of `size` degrees."""
    steps = np.linspace(-size / 2, size / 2, max(2, int(size * 60)))
    east, north = (grid.ravel() for grid in np.meshgrid(steps, steps))
    shift = 2 * (HEALPIX_ORDER - ORDER)
    cell = np.unique(healpix((ra + east / np.cos(np.radians(dec))) % 360, dec + north, ORDER)) << shift
    return Request(folder, Footprint.of(cell, cell + (1 << shift)), folder / "labels_cache")
