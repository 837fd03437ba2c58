"""The measurements of an imaging survey: noise, non-detections, unobserved bands, saturation and bad rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from photerr import LsstErrorModel
from scipy.spatial import cKDTree

from zmill.simulate.field import Field, offset
from zmill.simulate.galaxies import BANDS, I_BAND
from zmill.simulate.sky import Sky

Array = NDArray[np.float64]

YEARS = 2.0
"""Duration of LSST in years: 5 sigma at i = 25.9 for a point source."""
UNDETECTED, UNOBSERVED = 99.0, -99.0
"""Values in the magnitude column. The error column of an undetected band has its 1 sigma limiting magnitude."""
SATURATION = np.array([14.7, 15.7, 15.8, 15.8, 15.3, 13.9])
"""Magnitudes of stars that saturate the detector in 30 s: LSST Science Book, table 3.1."""
PSF = 0.45
"""Half-light radius of the point-spread function in i, arcsec."""
HALO = 8.0
"""Radius in arcsec around a saturated source within which its light and bleed trails affect other sources."""
BAD_ROWS = 40
"""Number of bad rows of each kind in 300,000 rows."""


def observe(rng: np.random.Generator, field: Field, sky: Sky, faintest_i: float) -> tuple[Sky, pa.Table]:
    """The detected objects, and their rows in the survey, in the same order.

    An object is detected if it is measured in i at 5 sigma or better, and brighter than `faintest_i`.
    """
    model = LsstErrorModel(nYrObs=YEARS, sigLim=1, ndFlag=UNDETECTED, extendedType="auto")
    truth = pd.DataFrame(sky.reddened, columns=list(BANDS))
    truth["major"], truth["minor"] = sky.radius, sky.radius * sky.axis_ratio
    measured = model(truth, random_state=rng)
    mag = measured[list(BANDS)].to_numpy(copy=True)
    error = measured[[f"{band}_err" for band in BANDS]].to_numpy(copy=True)
    detected = (mag[:, I_BAND] < faintest_i) & (error[:, I_BAND] < 0.2)
    sky, mag, error = sky[detected], mag[detected], error[detected]
    error = np.where(mag == UNDETECTED, _limits(model, sky), error)
    mag, error, saturated = _saturate(rng, sky, mag, error)
    gap = unobserved(field, sky.x, sky.y)
    mag[gap], error[gap] = UNOBSERVED, UNOBSERVED
    blur = rng.normal(0, 0.02 + 0.3 * error[:, I_BAND] * PSF, (2, len(sky)))  # arcsec
    ra, dec = offset(sky.ra, sky.dec, blur[0], blur[1])
    size = np.hypot(PSF, sky.radius * np.sqrt(sky.axis_ratio))
    size *= 1 + rng.normal(0, 0.01 + error[:, I_BAND])
    columns: dict[str, NDArray[np.generic]] = {
        "objectId": object_ids(len(sky)),
        "coord_ra": ra,
        "coord_dec": dec,
    }
    for number, band in enumerate(BANDS):
        columns[f"mag_{band}"] = mag[:, number].astype(np.float32)
        columns[f"magerr_{band}"] = error[:, number].astype(np.float32)
    columns["ebv"] = sky.ebv.astype(np.float32)
    columns["size"] = np.maximum(size, 0.2).astype(np.float32)
    columns["saturated"] = saturated.astype(np.int8)
    return sky, pa.table(columns)


def _limits(model: LsstErrorModel, sky: Sky) -> Array:
    """(n, 6) 1 sigma limiting magnitudes; the larger aperture of an extended source has more sky noise."""
    point = model.getLimitingMags(nSigma=1)
    seeing = np.array([model.params.theta[band] * model.params.airmass[band] ** 0.6 for band in BANDS]) / 2.355
    major = np.hypot(seeing, 2.5 * sky.radius[:, None])
    minor = np.hypot(seeing, 2.5 * (sky.radius * sky.axis_ratio)[:, None])
    return np.array([point[band] for band in BANDS]) - 1.25 * np.log10(major * minor / seeing**2)


def object_ids(n: int) -> NDArray[np.int64]:
    """Unique identifiers like those of a data release, too large to be exact in float64."""
    return 4_000_000_000_000_001 * 20 + np.arange(n, dtype=np.int64) * 7


def unobserved(field: Field, x: Array, y: Array) -> NDArray[np.bool_]:
    """(n, 6) whether a band is unobserved: u in a corner, y in gaps between chips, z in a dead chip."""
    none = np.zeros((len(x), len(BANDS)), bool)
    none[:, BANDS.index("u")] = (x > 0.75 * field.width) & (y < 0.35 * field.height)
    none[:, BANDS.index("y")] = np.mod(x, 0.23) < 0.008
    none[:, BANDS.index("z")] = (np.abs(x - 0.3 * field.width) < 0.05) & (np.abs(y - 0.7 * field.height) < 0.1)
    return none


def _saturate(rng: np.random.Generator, sky: Sky, mag: Array, error: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Saturate bright sources, which lose flux above the full well and add light to nearby sources; both are flagged."""
    spread = 2.5 * np.log10(1 + (sky.radius / PSF) ** 2)[:, None]
    full = SATURATION - spread
    over = mag < full
    mag = np.where(over, full + 0.3 * (mag - full) + rng.normal(0, 0.1, mag.shape), mag)
    saturated = np.asarray(over.any(axis=1), bool)
    flagged = saturated.copy()
    if saturated.any():
        plane = np.stack([sky.x, sky.y], axis=1) * 3600
        distance, _ = cKDTree(plane[saturated]).query(plane)
        spoiled = (distance < HALO) & ~saturated
        flagged |= spoiled
        light = rng.exponential(0.4, (int(spoiled.sum()), len(BANDS))) * (1 - distance[spoiled] / HALO)[:, None]
        mag[spoiled] = np.where(mag[spoiled] == UNDETECTED, UNDETECTED, mag[spoiled] - light)
    return mag, error, flagged


def spoil(rng: np.random.Generator, table: pa.Table, tract: NDArray[np.int64]) -> tuple[pa.Table, NDArray[np.int64]]:
    """Add the faults of real catalogues, each kind to some rows.

    Parameters
    ----------
    table : the survey's rows.
    tract : (n,) number of the file of each row.

    Returns
    -------
    The rows, with repeated rows at the end, and the file of each. A repeated row is in another file than the first, as in
    the overlap of two tracts.
    """
    n = table.num_rows
    count = max(2, round(BAD_ROWS * n / 300_000))
    columns = {name: table.column(name).to_numpy().copy() for name in table.column_names}
    chosen = rng.permutation(n)[: 8 * count].reshape(8, count)
    nan_ra, nan_dec, high_dec, low_ra, infinite, negative, zero, twice = chosen
    columns["coord_ra"][nan_ra] = np.nan
    columns["coord_dec"][nan_dec] = np.nan
    columns["coord_dec"][high_dec] = rng.uniform(90.5, 120, count)
    columns["coord_ra"][low_ra] = -999.0
    columns["mag_r"][infinite] = np.inf
    columns["mag_g"][infinite[: count // 2]] = -np.inf
    columns["magerr_i"][negative] = -1.0
    columns["magerr_i"][zero] = 0.0
    repeated = pa.table({name: np.concatenate([values, values[twice]]) for name, values in columns.items()})
    return repeated, np.concatenate([tract, (tract[twice] + 1) % (tract.max() + 1)])
