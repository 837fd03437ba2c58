"""A catalogue of spectra with the columns of SDSS: bright galaxies, luminous red galaxies, quasars and stars."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from astropy.table import Table
from numpy.typing import NDArray

from zmill.simulate.sky import GALAXY, QUASAR, STAR, Sky
from zmill.simulate.spectra import Targets, mistaken, pointed, spectroscopic, truth
from zmill.units import LIGHT_SPEED_KM_S

Array = NDArray[np.float64]

ASTROMETRY, SHIFT = 0.1, (0.05, -0.03)
"""Scatter per axis and offset of the frame, arcsec."""
REPEATED = 0.08
DOUBTFUL, WRONG, WRONG_IF_DOUBTFUL = 0.04, 0.003, 0.4
"""Fraction of the spectra with zWarning; fractions of wrong redshifts without and with it."""


def selected(sky: Sky, rng: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """Rows of the objects of each program; an object is in one program at most.

    Main galaxy sample r < 17.77 (Strauss et al. 2002); LOWZ and CMASS color cuts (Reid et al. 2016, sect. 3); quasars to
    g = 22 (Myers et al. 2015); stars for calibration, or mistaken for other targets.
    """
    _, g, r, i, _, _ = sky.mag.T
    galaxy = sky.kind == GALAXY
    across = (r - i) - (g - r) / 4 - 0.18
    along = 0.7 * (g - r) + 1.2 * ((r - i) - 0.18)
    above = (r - i) - (g - r) / 8
    low_z = (np.abs(across) < 0.2) & (r < 13.5 + along / 0.3) & (r > 16) & (r < 19.6)
    high_z = (above > 0.55) & (i > 17.5) & (i < 19.9) & (i < 19.86 + 1.6 * (above - 0.8)) & (r - i < 2)
    star = sky.kind == STAR
    chosen = {
        "legacy": (galaxy & (r < 17.77), 0.94),
        "boss": (galaxy & (low_z | high_z), 0.9),
        "eboss": (galaxy & (r > 17.77) & (r < 20.0), 0.35),
        "quasar": ((sky.kind == QUASAR) & (g < 22.0), 0.7),
        "star": (star & (r > 15.5) & (r < 19.5), 0.06),
    }
    taken, rows = np.zeros(len(sky), bool), {}
    for program, (mask, completeness) in chosen.items():
        picked = np.flatnonzero(mask & ~taken & (rng.uniform(0, 1, len(sky)) < completeness))
        taken[picked] = True
        rows[program] = picked
    return rows


def catalogue(rng: np.random.Generator, targets: Targets) -> tuple[Table, pa.Table]:
    """The catalogue with the column names of specObj files, and the true objects of its entries."""
    programs = selected(targets.sky, rng)
    rows = np.concatenate(list(programs.values()))
    program = np.repeat(list(programs), [len(part) for part in programs.values()])
    again = rng.uniform(0, 1, len(rows)) < REPEATED
    rows, program = np.concatenate([rows, rows[again]]), np.concatenate([program, program[again]])
    primary = np.repeat([1, 0], [len(again), again.sum()]).astype(np.int16)
    order = rng.permutation(len(rows))
    rows, program, primary = rows[order], program[order], primary[order]
    sky, n = targets.sky[rows], len(rows)
    speed = np.where(sky.kind == STAR, rng.normal(0, 150 / LIGHT_SPEED_KM_S, n), 0.0)
    error = np.where(sky.kind == QUASAR, 4e-4, 5e-5) * rng.lognormal(0, 0.4, n)
    z = spectroscopic(rng, sky.z + speed, error)
    doubtful = rng.uniform(0, 1, n) < DOUBTFUL * np.clip(10 ** (0.3 * (sky.mag[:, 2] - 19)), 0.3, 4)
    wrong = rng.uniform(0, 1, n) < np.where(doubtful, WRONG_IF_DOUBTFUL, WRONG)
    z = np.where(wrong, mistaken(rng, sky.z), z)
    # 4: two fits nearly as good; 16: too many outliers; 128: the fiber was unplugged, nothing was measured
    warning = np.where(doubtful, rng.choice([4, 4, 4, 16, 20], n), 0)
    unplugged = rng.uniform(0, 1, n) < 0.004
    z, warning = np.where(unplugged, 0.0, z), np.where(unplugged, 128, warning)
    kind = np.array(["GALAXY", "STAR", "QSO"])[sky.kind]
    kind = np.where(wrong & (rng.uniform(0, 1, n) < 0.2), "QSO", kind)
    forming = (sky.kind == GALAXY) & ~sky.red & (rng.uniform(0, 1, n) < 0.5)
    subclass = np.where(
        forming, "STARFORMING", np.where(kind == "QSO", "BROADLINE", np.where(kind == "STAR", "F5", ""))
    )
    ra, dec = pointed(rng, sky, ASTROMETRY, SHIFT)
    plate = np.where(program == "legacy", 1900, 4200) + np.floor(sky.x / 0.6).astype(int)
    entry = np.array([f"{299_567_400_000_000_000 + 2048 * number:d}" for number in range(n)])
    table = Table(
        {
            "SURVEY": np.where(program == "legacy", "sdss", np.where(program == "boss", "boss", "eboss")),
            "SPECPRIMARY": primary,
            "SPECOBJID": entry,
            "PLATE": plate.astype(np.int32),
            "MJD": (55_000 + 7 * (plate - 1900) % 2000).astype(np.int32),
            "FIBERID": (np.arange(n) % 1000 + 1).astype(np.int32),
            "PLUG_RA": ra,
            "PLUG_DEC": dec,
            "CLASS": kind,
            "SUBCLASS": subclass,
            "Z": z.astype(np.float32),
            "Z_ERR": np.where(warning == 128, -1.0, error * (1 + sky.z)).astype(np.float32),
            "ZWARNING": warning.astype(np.int32),
            "SN_MEDIAN_ALL": (30 * 10 ** (0.3 * (17.5 - sky.mag[:, 2]))).astype(np.float32),
        }
    )
    return table, truth("sdss", entry, targets, rows, z)
