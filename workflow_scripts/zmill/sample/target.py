"""The target distribution of the weights: rows drawn uniformly from the clean catalogue, few enough for memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from zmill.catalog import hats
from zmill.catalog.sky import HEALPIX_COLUMN
from zmill.inputs.photometry import batch as photometry
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.colors import FloatArray, color_space
from zmill.sample.sample import uniform
from zmill.workflow.job import Progress

MOST_ROWS = 200_000
"""Most rows that are kept: enough for densities with errors of a few per cent, and for a computation of seconds."""
MOST_GROUPS = 256
"""Most row groups that are read, spread evenly over the sky; all of them in smaller surveys."""
FEWEST_BANDS = 2
"""Fewest measured bands of a row in the draw; with fewer, a row has no color and its redshift is almost unconstrained."""
SALT = 0x7A6D696C6C
"""Makes the draw independent of the split, which hashes with the same seed."""


@dataclass(frozen=True)
class Target:
    """Rows drawn from the survey.

    values : (n, bands) rows in color space (`colors.color_space`); NaN where unknown.
    survey_rows, read, wanted : number of rows of the survey; of the row groups that were read; and, of these, of rows that
        pass the cuts of the survey and have enough measured bands. `values` is a uniform draw of the last.
    """

    values: FloatArray
    survey_rows: int
    read: int
    wanted: int


def draw(
    clean: Path,
    bands: tuple[str, ...],
    reference: int,
    seed: int,
    most_rows: int = MOST_ROWS,
    most_groups: int = MOST_GROUPS,
) -> Target:
    """Draw rows uniformly from the clean catalogue; one row group is in memory at a time.

    Each row has a number in [0, 1) that depends on its position and the seed alone; rows with the smallest numbers are
    kept, so that the draw does not depend on the partitions of the sky or their order.

    Parameters
    ----------
    clean : the clean catalogue.
    reference : index of the reference band.
    """
    names = [HEALPIX_COLUMN, "cut", *(name for name in photometry.columns(bands) if not name.startswith("magerr_"))]
    keys, found = np.empty(0), np.empty((0, len(bands)))
    read = wanted = 0
    total = hats.rows(clean)
    progress = Progress("draw rows of the survey")
    for path, group in _spread(clean, most_groups):
        with pq.ParquetFile(path) as file:
            there = [name for name in names if name in file.schema_arrow.names]
            rows = file.read_row_group(group, columns=there)
        batch = Photometry.from_arrow(rows, bands)
        passes = rows.column("cut").to_numpy() == 0
        passes &= batch.measured.sum(1) >= min(FEWEST_BANDS, len(bands))
        key = uniform(rows.column(HEALPIX_COLUMN).to_numpy(), seed ^ SALT)
        read, wanted = read + rows.num_rows, wanted + int(passes.sum())
        progress.add(rows.num_rows)
        keys = np.concatenate([keys, key[passes]])
        found = np.concatenate([found, color_space(batch[passes], reference)])
        if len(keys) > most_rows:
            least = np.argpartition(keys, most_rows)[:most_rows]
            keys, found = keys[least], found[least]
    progress.end()
    return Target(found[np.argsort(keys, kind="stable")], total, read, wanted)


def _spread(clean: Path, most: int) -> Iterator[tuple[Path, int]]:
    """At most `most` row groups of a catalogue, evenly spaced on the sky, so that every row is equally likely to be in one."""
    groups = []
    for partition in hats.partitions(clean):
        path = partition.file(clean)
        groups += [(path, group) for group in range(pq.read_metadata(path).num_row_groups)]
    for number in np.unique(np.linspace(0, len(groups) - 1, min(len(groups), most)).round().astype(int)):
        yield groups[number]
