"""Footprints: which cells have rows, what lies near them, and how they are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from zmill.catalog import hats
from zmill.catalog.footprint import Footprint, describe_positions
from zmill.catalog.hats import Partition
from zmill.catalog.sky import HEALPIX_COLUMN, healpix

CELL = 1 << 38
"""Indices of order 29 in a cell of order 10."""


def test_touching_cells_become_one_interval() -> None:
    start = np.array([7, 2, 3, 5]) * CELL
    found = Footprint.of(start, start + CELL)
    assert (found.start // CELL).tolist() == [2, 5, 7] and (found.end // CELL).tolist() == [4, 6, 8]


def test_overlaps() -> None:
    found = Footprint.of(np.array([10, 30]), np.array([20, 40]))
    start, end = np.array([[0, 10], [5, 11], [19, 20], [20, 30], [15, 35], [40, 50]]).T
    assert found.overlaps(start, end).tolist() == [False, True, True, False, True, False]


@pytest.mark.parametrize("order", [3, 12])
def test_a_catalogue_of_any_order(tmp_path: Path, order: int) -> None:
    """Rows, and places some arcsec from them, are near; places 10 arcmin away are not, whatever the partitions."""
    random = np.random.default_rng(2)
    ra, dec = random.uniform(359.9, 360.1, 50) % 360, random.uniform(-0.1, 0.1, 50)
    index = np.sort(healpix(ra, dec))
    pixels = index >> 2 * (29 - order)
    found = [Partition(order, int(pixel)) for pixel in np.unique(pixels)]
    for partition in found:
        rows = pa.table({HEALPIX_COLUMN: index[pixels == partition.pixel]})
        with hats.write_partition(tmp_path, partition, rows.schema) as writer:
            writer.write(rows)
    hats.finish(tmp_path, "rows", found)
    footprint = Footprint.read(tmp_path)
    assert footprint.near(index).all()
    assert footprint.near(healpix(ra, dec + 40 / 3600)).all()
    assert not footprint.near(healpix(ra, dec + 0.5)).any()
    assert footprint.describe().startswith("ra 359.")


def test_no_rows() -> None:
    nothing = Footprint.of(np.empty(0, np.int64), np.empty(0, np.int64))
    assert nothing.describe() == "no pixel"
    assert not nothing.near(np.array([5])).any()


def test_ranges_go_across_ra_zero() -> None:
    assert describe_positions(np.array([359.0, 1.0, 0.0]), np.array([-1.0, 2.0, 0.0])) == "ra 359 to 1, dec -1 to 2 deg"
