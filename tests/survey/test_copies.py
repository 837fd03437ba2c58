"""Objects that a survey has twice under different identifiers are counted by the import, all over the sky."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_survey import survey, table, write
from test_importer import run

from zmill.catalog.sky import healpix
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.survey.copies import copies
from zmill.workflow.warning import collect


def moved(rows: pa.Table, arcsec: float, magnitude: float = 0.0, seed: int = 1) -> pa.Table:
    """The same objects under other identifiers, detected again a little apart and with noise."""
    rng = np.random.default_rng(seed)
    ra, dec = rows["ra"].to_numpy(), rows["dec"].to_numpy()
    angle = rng.uniform(0, 2 * np.pi, len(ra))
    columns = {name: rows[name] for name in rows.column_names}
    columns["id"] = pa.array(rows["id"].to_numpy() + 1_000_000)
    columns["ra"] = pa.array((ra + arcsec / 3600 * np.cos(angle) / np.cos(np.radians(dec))) % 360)
    columns["dec"] = pa.array(np.clip(dec + arcsec / 3600 * np.sin(angle), -90, 90))
    for name in rows.column_names:
        if name.startswith("mag_"):
            mag = rows[name].to_numpy()
            noisy = mag + magnitude + rng.normal(0, 0.1, len(mag))
            columns[name] = pa.array(np.where(np.abs(mag) == 99, mag, noisy).astype(np.float32))
    return pa.table(columns)


def imported(folder: Path, *tiles: pa.Table) -> list[str]:
    """The warnings of the import of files."""
    files = []
    for number, tile in enumerate(tiles):
        (folder / str(number)).mkdir(exist_ok=True)
        files.append(write(tile, folder / str(number), "parquet"))
    run(folder, files, survey())
    return [text for stage, text in collect(folder) if stage == "import"]


@pytest.mark.parametrize("arcsec", [0.0, 0.05, 0.15])
def test_the_overlap_of_two_tiles_is_warned_of_with_an_example(tmp_path: Path, arcsec: float) -> None:
    first = table(3000)
    second = pa.concat_tables([moved(first.slice(0, 90), arcsec), table(2000, seed=2, first_id=10_000)])
    (warning,) = imported(tmp_path, first, second)
    assert warning.startswith("90 of 5,090 rows have the position")
    example = warning.split("for example ")[1].split(" at ra")[0]
    one, other = sorted(map(int, example.split(" and ")))
    assert other == one + 1_000_000


def test_neighbors_of_another_magnitude_and_few_copies_are_not_warned_of(tmp_path: Path) -> None:
    first = table(9000)
    others = pa.concat_tables([moved(first.slice(0, 900), 0.1, magnitude=1.5), moved(first.slice(900, 5), 0.1)])
    assert imported(tmp_path, first, others) == []


def test_a_night_that_brings_an_overlap_counts_all_partitions(tmp_path: Path) -> None:
    first = table(3000)
    assert imported(tmp_path, first) == []
    (warning,) = imported(tmp_path, first, moved(first.slice(0, 60), 0.1))
    assert warning.startswith("60 of 3,060 rows")
    (warning,) = imported(tmp_path, first, moved(first.slice(0, 60), 0.1), moved(table(50, seed=3, first_id=9000), 0))
    assert warning.startswith("60 of 3,110 rows")


@settings(max_examples=100, deadline=None)
@given(
    st.floats(-90, 90),
    st.floats(0, 360),
    st.integers(1, 200),
    st.floats(0, 0.19),
    st.integers(0, 2**31 - 1),
    st.booleans(),
)
def test_every_row_that_follows_its_copy_is_found_wherever_it_lies(
    dec: float, ra: float, objects: int, apart: float, seed: int, known: bool
) -> None:
    """Objects minutes apart: nothing but the copy is near."""
    rng = np.random.default_rng(seed)
    north = np.clip(dec + np.arange(objects) / 20 * (-1 if dec > 0 else 1), -90, 90)
    east = (ra + np.zeros(objects)) % 360
    mag = rng.uniform(18, 26, objects) if known else np.full(objects, np.nan)
    moved_north = north + np.where(north > 0, -1, 1) * apart / 3600
    places = np.concatenate([east, east]), np.concatenate([north, moved_north])
    rows = pa.table(
        {
            "ra": places[0],
            "dec": places[1],
            "mag_r": np.concatenate([mag, mag]).astype(np.float32),
            "magerr_r": np.full(2 * objects, 0.1, np.float32),
            "mag_extra": ["text"] * (2 * objects),
        }
    )
    order = np.argsort(healpix(*places), kind="stable")
    inputs = (PhotometryKind(("r",), 0),)
    found = copies(rows, inputs, order)
    assert len(found) == objects
    ordered = rows.take(pa.array(order))
    assert np.array_equal(copies(ordered, inputs), found)
