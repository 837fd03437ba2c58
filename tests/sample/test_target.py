"""The draw of the survey's rows: uniform, bounded, the same however the sky is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clean.small import BANDS, write_rows, write_survey
from zmill.catalog import hats
from zmill.catalog.hats import Partition
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.sample.target import Target, draw


def write_clean(folder: Path, sizes: list[int], cut: int = 10) -> pa.Table:
    """A clean catalogue, one row in `cut` of which fails a cut; its rows."""
    partitions = write_survey(folder, sizes)
    for partition in partitions:
        rows = hats.read_columns(folder, partition)
        fails = pa.array((np.arange(rows.num_rows) % cut == 0).astype(np.int32))
        none = pa.array(np.zeros(rows.num_rows, np.int32))
        write_rows(folder, partition, rows.append_column("imputed", none).append_column("cut", fails))
    hats.finish(folder, "clean", partitions)
    return pa.concat_tables([hats.read_columns(folder, partition) for partition in partitions])


KIND = PhotometryKind(BANDS, 1)


def references(target: Target) -> set[float]:
    return set(target.values[:, 0][np.isfinite(target.values[:, 0])].tolist())


def test_all_rows_that_pass_where_they_are_few(tmp_path: Path) -> None:
    rows = write_clean(tmp_path, [500, 0, 300])
    target = draw(tmp_path, KIND, 1)
    mag = np.stack([rows.column(f"mag_{band}").to_numpy() for band in BANDS], axis=1)
    wanted = (rows.column("cut").to_numpy() == 0) & (np.isfinite(mag).sum(1) >= 2)
    assert (target.survey_rows, target.read, target.wanted) == (800, 800, wanted.sum())
    assert len(target.values) == wanted.sum() < 800
    known = mag[wanted][np.isfinite(mag[wanted][:, 1]), 1].astype(np.float64)
    assert references(target) >= set(known.tolist())


def test_the_draw_does_not_depend_on_partitions(tmp_path: Path) -> None:
    rows = write_clean(tmp_path / "one", [3000, 2000])
    everything = Partition(0, 0)
    write_rows(tmp_path / "other", everything, rows)
    hats.finish(tmp_path / "other", "other", [everything])
    one, other = (draw(tmp_path / name, KIND, 1, max_rows=700) for name in ("one", "other"))
    assert np.array_equal(one.values, other.values, equal_nan=True)
    assert len(one.values) == 700
    again = draw(tmp_path / "one", KIND, 2, max_rows=700)
    assert not np.array_equal(one.values, again.values, equal_nan=True)


def test_the_draw_is_uniform_over_the_sky(tmp_path: Path) -> None:
    rows = write_clean(tmp_path, [6000, 2000])
    drawn = references(draw(tmp_path, KIND, 1, max_rows=2000))
    first = set(rows.slice(0, 6000).column("mag_r").to_numpy().astype(np.float64).tolist())
    share = np.mean([value in first for value in drawn])
    assert abs(share - 0.75) < 0.05


def test_few_row_groups_are_read_of_a_large_survey(tmp_path: Path) -> None:
    rows = write_clean(tmp_path, [900] * 12)
    target = draw(tmp_path, KIND, 1, most_groups=4)
    assert (target.survey_rows, target.read) == (10_800, 3600)
    everything = KIND.read(rows).summary_features()
    number = {row.tobytes(): place // 900 for place, row in enumerate(everything)}
    known = target.values[np.isfinite(target.values).all(1)]
    assert {number[row.tobytes()] for row in known} == {0, 4, 7, 11}


def test_rows_of_one_band_are_left_out(tmp_path: Path) -> None:
    write_clean(tmp_path, [400])
    lost = BANDS[1:]
    for partition in hats.partitions(tmp_path):
        rows = hats.read_columns(tmp_path, partition)
        for band in lost:
            place = rows.schema.get_field_index(f"mag_{band}")
            empty = pc.if_else(pa.array([True] * rows.num_rows), np.float32(np.nan), rows.column(place))
            rows = rows.set_column(place, rows.schema.field(place), empty.cast(pa.float32()))
        write_rows(tmp_path, partition, rows)
    assert draw(tmp_path, PhotometryKind(BANDS, 0), 1).wanted == 0
