"""The demo sky: a survey in four files, three spectroscopic catalogues, and the true values, which only tests read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.table import Table
from numpy.typing import NDArray
from pyarrow import csv

from zmill.catalog.files import atomic_write
from zmill.simulate import deep, ned, sdss, sky, survey
from zmill.simulate.field import Field
from zmill.simulate.galaxies import BANDS
from zmill.simulate.spectra import Targets
from zmill.workflow.job import Progress, log

FAINTEST_I = 24.5
"""Limit in i of the demo's survey."""
TRACTS = 4


@dataclass(frozen=True)
class Demo:
    """The tables of the demo sky.

    tracts : the survey's files.
    sdss, ned : tables as astropy writes them; deep : a table.
    objects : true values of every object: object_id, z_true, type, is_star, is_quasar, group, mag_<band>.
    entries : the true object and redshift of every spectroscopic entry.
    """

    tracts: list[pa.Table]
    sdss: Table
    ned: Table
    deep: pa.Table
    objects: pa.Table
    entries: pa.Table


def simulate(seed: int, area: float, faintest_i: float = FAINTEST_I) -> Demo:
    """Simulate `area` square degrees down to an i magnitude; equal arguments give equal tables."""
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(6)]
    field = Field.of_area(area)
    progress = Progress("simulated")
    objects = sky.make(streams[0], field, faintest_i)
    progress.add(len(objects))
    progress.end()
    observed, rows = survey.observe(streams[1], field, objects, faintest_i)
    log.info("%d objects on %.2f square degrees, %d of them in the survey", len(objects), area, len(observed))
    object_id = rows.column("objectId").to_numpy()
    tract = (observed.x > field.width / 2) * 2 + (observed.y > field.height / 2)
    spoiled, of = survey.spoil(streams[2], rows, tract.astype(np.int64))
    targets = Targets(observed, object_id)
    sdss_table, sdss_truth = sdss.catalogue(streams[3], targets)
    deep_table, deep_truth = deep.catalogue(streams[4], field, targets)
    ned_table, ned_truth = ned.catalogue(streams[5], targets)
    log.info("spectra: %d sdss, %d deep, %d ned", len(sdss_table), deep_table.num_rows, len(ned_table))
    return Demo(
        tracts=[spoiled.filter(pa.array(of == number)) for number in range(TRACTS)],
        sdss=sdss_table,
        ned=ned_table,
        deep=deep_table,
        objects=_objects(observed, object_id),
        entries=pa.concat_tables([sdss_truth, deep_truth, ned_truth]),
    )


def write(demo: Demo, tracts: list[Path], sdss_file: Path, ned_file: Path, deep_file: Path, truth: list[Path]) -> None:
    """Write each table to its file; the bytes depend only on the content."""
    for path, rows in zip(tracts, demo.tracts, strict=True):
        with atomic_write(path) as temporary:
            pq.write_table(rows, temporary, compression="zstd")
    with atomic_write(sdss_file) as temporary:
        demo.sdss.write(temporary, format="fits", overwrite=True)
    with atomic_write(ned_file) as temporary:
        demo.ned.write(temporary, format="votable", tabledata_format="binary2")
    with atomic_write(deep_file) as temporary:
        csv.write_csv(demo.deep, temporary)
    for path, rows in zip(truth, (demo.objects, demo.entries), strict=True):
        with atomic_write(path) as temporary:
            pq.write_table(rows, temporary, compression="zstd")


def _objects(observed: sky.Sky, object_id: NDArray[np.int64]) -> pa.Table:
    columns = {
        "object_id": object_id,
        "ra": observed.ra,
        "dec": observed.dec,
        "z_true": observed.z,
        "type": observed.type.astype(np.float32),
        "dust": observed.dust.astype(np.float32),
        "is_star": observed.kind == sky.STAR,
        "is_quasar": observed.kind == sky.QUASAR,
        "group": observed.group,
        "radius": observed.radius.astype(np.float32),
        "ebv": observed.ebv.astype(np.float32),
    }
    return pa.table(
        columns | {f"mag_{band}": observed.mag[:, number].astype(np.float32) for number, band in enumerate(BANDS)}
    )
