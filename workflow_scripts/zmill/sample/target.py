"""The target distribution of the weights: rows drawn uniformly from the clean catalogue, few enough for memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from zmill.catalog import hats
from zmill.catalog.sky import HEALPIX_COLUMN
from zmill.inputs.base import FULL, InputKind
from zmill.sample.sample import uniform
from zmill.workflow.job import Progress

FloatArray = NDArray[np.float64]
MOST_ROWS = 200_000
"""Most rows that are kept: enough for densities with errors of a few per cent, and for a computation of seconds."""
MOST_GROUPS = 256
"""Most row groups that are read, spread evenly over the sky; all of them in smaller surveys."""
SALT = 0x7A6D696C6C
"""Makes the draw independent of the split, which hashes with the same seed."""


@dataclass(frozen=True)
class Target:
    """Rows drawn from the survey.

    values : (n, k) summary features of the rows (`Batch.summary_features`); NaN where unknown.
    survey_rows, read, wanted : number of rows of the survey; of the row groups that were read; and, of these, of rows that
        pass the cuts of the survey and have enough information (`Batch.information`). `values` is a uniform draw of the last.
    """

    values: FloatArray
    survey_rows: int
    read: int
    wanted: int


def draw(
    clean: Path,
    kind: InputKind,
    seed: int,
    max_rows: int = MOST_ROWS,
    most_groups: int = MOST_GROUPS,
) -> Target:
    """Draw rows uniformly from the clean catalogue; one row group is in memory at a time.

    Each row has a number in [0, 1) that depends on its position and the seed alone; rows with the smallest numbers are
    kept, so that the draw does not depend on the partitions of the sky or their order.

    Parameters
    ----------
    clean : the clean catalogue.
    kind : the first input kind of the survey.
    """
    names = [HEALPIX_COLUMN, "cut", *kind.columns()]
    keys, found = np.empty(0), np.empty((0, 0))
    read = wanted = 0
    total = hats.rows(clean)
    progress = Progress("draw rows of the survey")
    for path, group in _spread(clean, most_groups):
        with pq.ParquetFile(path) as file:
            there = [name for name in names if name in file.schema_arrow.names]
            rows = file.read_row_group(group, columns=there)
        batch = kind.read(rows)
        passes = rows.column("cut").to_numpy() == 0
        passes &= batch.information() == FULL  # others have hardly any position in the space, and any redshift
        key = uniform(rows.column(HEALPIX_COLUMN).to_numpy(), seed ^ SALT)
        read, wanted = read + rows.num_rows, wanted + int(passes.sum())
        progress.add(rows.num_rows)
        keys = np.concatenate([keys, key[passes]])
        features = batch[passes].summary_features()
        found = np.concatenate([found, features]) if len(found) else features
        if len(keys) > max_rows:
            least = np.argpartition(keys, max_rows)[:max_rows]
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
