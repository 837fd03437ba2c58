"""The rows that redshifts are wanted of: a uniform draw from the clean catalogue that fits in memory."""

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
from zmill.inputs.photometry.colors import FloatArray, places
from zmill.sample.sample import uniform
from zmill.workflow.job import Progress

MOST_ROWS = 200_000
"""Rows that are kept: a density is told to a few per cent wherever it matters, and the work stays a matter of seconds."""
MOST_GROUPS = 256
"""Row groups that are read, spread evenly over the sky; smaller surveys are read whole."""
FEWEST_BANDS = 2
"""Measured bands of a row that has a place in magnitude and color; with fewer, its redshift is little more than a guess."""
SALT = 0x7A6D696C6C
"""Keeps the draw from having anything to do with the split, which hashes with the same seed."""


@dataclass(frozen=True)
class Target:
    """Rows drawn from the survey.

    places : (n, bands) reference magnitude and adjacent colors, see `places`; NaN where unknown.
    survey_rows, read, wanted : rows of the survey; of the row groups that were read; of these, rows that pass the
        survey's cuts and have enough measured bands, of which `places` are a uniform draw.
    """

    places: FloatArray
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

    A row's own position and the seed give it a number in [0, 1); those with the smallest are kept, so that the draw
    depends neither on how the sky is cut into partitions nor on their order.

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
        found = np.concatenate([found, places(batch[passes], reference)])
        if len(keys) > most_rows:
            least = np.argpartition(keys, most_rows)[:most_rows]
            keys, found = keys[least], found[least]
    progress.end()
    return Target(found[np.argsort(keys, kind="stable")], total, read, wanted)


def _spread(clean: Path, most: int) -> Iterator[tuple[Path, int]]:
    """Row groups of a catalogue, all or so many, at even steps along the sky: every row is as likely to be in one."""
    groups = []
    for partition in hats.partitions(clean):
        path = partition.file(clean)
        groups += [(path, group) for group in range(pq.read_metadata(path).num_row_groups)]
    for number in np.unique(np.linspace(0, len(groups) - 1, min(len(groups), most)).round().astype(int)):
        yield groups[number]
