"""Import after import of files that change: what is written is what changed, and the catalogue is that of a first import."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_survey import survey, table
from test_importer import Killed, hashes, rejected, run

from zmill.catalog import hats, shards
from zmill.catalog.hats import Partition
from zmill.catalog.sky import healpix
from zmill.survey import pieces


def tiles(folder: Path, rows: int = 1200) -> list[Path]:
    """The survey in a file for each of the twelve pixels of order 0."""
    data = table(rows)
    pixel = healpix(data["ra"].to_numpy(), data["dec"].to_numpy(), 0)
    folder.mkdir(parents=True)
    for one in range(12):
        pq.write_table(data.filter(pa.array(pixel == one)), folder / f"{one:02d}.parquet")
    return sorted(folder.glob("*.parquet"))


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[set[str], set[str]]:
    """Partitions that an import writes and files that it converts."""
    parts, files = set(), set()
    write, group = pieces.write, pieces.group
    with monkeypatch.context() as patched:
        patched.setattr(pieces, "write", lambda *given: parts.add(given[1].name) or write(*given))
        patched.setattr(pieces, "group", lambda *given: files.add(given[0].path.name) or group(*given))
        run(folder, sorted((folder / "in").glob("*.parquet")), **options)
    return parts, files


def inside(folder: Path, tile: int) -> set[str]:
    """Partitions below a pixel of order 0."""
    found = hats.partitions(folder / "survey")
    return {part.name for part in found if part.pixel >> 2 * part.order == tile}


def shard_plan(folder: Path) -> list[list[Partition]]:
    """The partitions of each shard."""
    catalog = folder / "survey"
    return [shards.read(shards.file(catalog, number)) for number in shards.numbers(catalog)]


def test_a_changed_file_is_all_that_is_read_and_its_partitions_all_that_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tiles(tmp_path / "in")
    assert len(written(tmp_path, monkeypatch)[1]) == 12
    before, plan = hashes(tmp_path), shard_plan(tmp_path)
    changed = pq.read_table(files[4])
    pq.write_table(changed.slice(1), files[4])
    assert written(tmp_path, monkeypatch) == (inside(tmp_path, 4), {"04.parquet"})
    after = hashes(tmp_path)
    assert {name for name in after if after[name] != before[name]} <= inside(tmp_path, 4)
    assert shard_plan(tmp_path) == plan
    pq.write_table(changed, files[4])
    written(tmp_path, monkeypatch)
    assert hashes(tmp_path) == before
    assert written(tmp_path, monkeypatch) == (set(), set())
    files[7].unlink()
    assert written(tmp_path, monkeypatch) == (set(), set())
    assert hashes(tmp_path) == {name: told for name, told in before.items() if name in hashes(tmp_path)}
    assert not inside(tmp_path, 7)


def test_a_damaged_partition_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles(tmp_path / "in")
    written(tmp_path, monkeypatch)
    before = hashes(tmp_path)
    lost, cut, *_ = hats.partitions(tmp_path / "survey")
    lost.sidecar(tmp_path / "survey").unlink()
    cut.file(tmp_path / "survey").write_bytes(b"")
    assert written(tmp_path, monkeypatch)[0] == {lost.name, cut.name}
    assert hashes(tmp_path) == before


def test_an_identifier_that_is_repeated_from_tonight_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tiles(tmp_path / "in")
    written(tmp_path, monkeypatch)
    first, later = pq.read_table(files[2]), pq.read_table(files[9])
    stolen = later["id"][0].as_py()
    ids = [stolen, *first["id"].to_pylist()[1:]]
    pq.write_table(first.set_column(0, "id", pa.array(ids)), files[2])
    parts, read = written(tmp_path, monkeypatch)
    assert read == {"02.parquet", "09.parquet"} and parts == inside(tmp_path, 2) | inside(tmp_path, 9)
    assert rejected(tmp_path) == {"duplicate_object_id": [str(stolen)]}
    pq.write_table(first, files[2])
    written(tmp_path, monkeypatch)
    assert rejected(tmp_path) == {}


def test_without_identifiers_rows_behind_a_longer_file_have_other_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = survey(columns={"object_id": None})
    files = tiles(tmp_path / "in")
    run(tmp_path, files, definition)
    pq.write_table(pq.read_table(files[8]).slice(3), files[8])
    run(tmp_path, files, definition)
    run(tmp_path / "fresh", files, definition)
    assert hashes(tmp_path) == hashes(tmp_path / "fresh")


nights = st.lists(
    st.tuples(
        st.sampled_from(["change", "shorten", "lengthen", "remove", "add", "steal", "dead"]),
        st.integers(0, 11),
        st.sampled_from([None, None, ("count", 0), ("group", 1), ("write", 0), ("write", 2)]),
    ),
    min_size=2,
    max_size=5,
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nights)
def test_any_nights_with_any_accidents_end_in_the_catalogue_of_a_first_import(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, happened: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("nights")
    files = tiles(folder / "in", 600)
    run(folder, files)
    for number, (what, tile, accident) in enumerate(happened):
        _change(folder / "in", what, tile, number)
        there = sorted((folder / "in").glob("*.parquet"))
        if accident:
            stage, after = accident
            task, done = getattr(pieces, stage), []

            def dies(*given: Any, task: Any = task, done: list[Any] = done, after: int = after) -> Any:
                done.append(1)
                if len(done) > after:
                    raise Killed
                return task(*given)

            with monkeypatch.context() as patched:
                patched.setattr(pieces, stage, dies)
                try:
                    run(folder, there)
                except Killed:
                    continue  # the next night finds what this one left, and other files
        else:
            run(folder, there)
    there = sorted((folder / "in").glob("*.parquet"))
    told = run(folder, there)
    assert told == run(folder / "fresh", there)
    assert hashes(folder) == hashes(folder / "fresh") and rejected(folder) == rejected(folder / "fresh")
    shutil.rmtree(folder)


def _change(folder: Path, what: str, tile: int, night: int) -> None:
    path = folder / f"{tile:02d}.parquet"
    if what == "add":
        pq.write_table(table(40, seed=night, first_id=10_000 * (night + 1)), folder / f"{tile:02d}-{night}.parquet")
    if not path.exists() or what == "add":
        return
    rows = pq.read_table(path)
    if what == "remove" and len(list(folder.iterdir())) > 6:
        path.unlink()
    elif what == "shorten" and rows.num_rows > 1:
        pq.write_table(rows.slice(1), path)
    elif what == "lengthen":
        pq.write_table(pa.concat_tables([rows, table(5, seed=99 + night, first_id=500_000 + 10 * night)]), path)
    elif what == "change":
        place = rows.schema.get_field_index("mag_g")
        pq.write_table(rows.set_column(place, "mag_g", pa.array(np.full(len(rows), 20 + night, np.float32))), path)
    elif what == "steal":
        donor = pq.read_table(sorted(folder.glob("*.parquet"))[-1])
        ids = pa.concat_arrays([donor["id"].combine_chunks()[:1], rows["id"].combine_chunks()[1:]])
        pq.write_table(rows.set_column(0, "id", ids), path)
    elif what == "dead":
        place = rows.schema.get_field_index("ra")
        pq.write_table(rows.set_column(place, "ra", pa.array([np.nan, *rows["ra"].to_pylist()[1:]])), path)
