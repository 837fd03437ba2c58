"""HATS catalogues: whole or absent, valid for others, hashed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmill.catalog import hats, shards, sky
from zmill.catalog.files import atomic_write, file_hash, write_json
from zmill.catalog.hats import CatalogError, Partition


def catalogue(folder: Path, rows: int = 2000, order: int = 1) -> list[Partition]:
    """A catalogue of random positions over the whole sky."""
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 360, rows), np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))
    index = sky.healpix(ra, dec)
    by_index = np.argsort(index)
    index, ra, dec = index[by_index], ra[by_index], dec[by_index]
    found = []
    for pixel in np.unique(sky.at_order(index, order)):
        there = sky.at_order(index, order) == pixel
        table = pa.table(
            {sky.HEALPIX_COLUMN: index[there], "object_id": np.flatnonzero(there), "ra": ra[there], "dec": dec[there]}
        )
        partition = Partition(order, int(pixel))
        with hats.write_partition(folder, partition, table.schema) as writer:
            writer.write(table)
        found.append(partition)
    return found


def test_a_finished_catalogue_is_valid_hats_and_keeps_its_rows(tmp_path: Path) -> None:
    from hats.io.validation import is_valid_catalog

    folder = tmp_path / "with spaces é"
    assert hats.finish(folder, "test", catalogue(folder)) == 2000
    assert is_valid_catalog(folder, strict=True)
    assert hats.rows(folder) == 2000
    read = pa.concat_tables(hats.read_columns(folder, partition) for partition in hats.partitions(folder))
    index = read[sky.HEALPIX_COLUMN].to_numpy()
    assert np.all(np.diff(index) > 0), "partitions in the order of the sky give rows in the order of the sky"


def test_lsdb_opens_it(tmp_path: Path) -> None:
    import lsdb

    hats.finish(tmp_path / "cat", "test", catalogue(tmp_path / "cat"))
    assert len(lsdb.open_catalog(tmp_path / "cat").compute()) == 2000


def test_the_sidecar_holds_the_hash_of_the_file(tmp_path: Path) -> None:
    partition = catalogue(tmp_path)[0]
    content = hats.sidecar(tmp_path, partition)
    assert content["xxh3_128"] == file_hash(partition.file(tmp_path))
    assert content["rows"] == pq.read_metadata(partition.file(tmp_path)).num_rows
    assert content["bytes"] == partition.file(tmp_path).stat().st_size


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    partitions = catalogue(tmp_path / "a")
    catalogue(tmp_path / "b")
    assert all(p.file(tmp_path / "a").read_bytes() == p.file(tmp_path / "b").read_bytes() for p in partitions)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    partition = Partition(0, 3)
    table = pa.table({sky.HEALPIX_COLUMN: np.arange(5)})
    with pytest.raises(RuntimeError), hats.write_partition(tmp_path, partition, table.schema) as writer:
        writer.write(table)
        raise RuntimeError("power lost")
    assert not partition.file(tmp_path).exists()
    assert not partition.sidecar(tmp_path).exists()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    with pytest.raises(CatalogError, match="never finished"):
        hats.sidecar(tmp_path, partition)


@pytest.mark.parametrize("told", [True, False])
def test_partitions_with_other_columns_are_refused(tmp_path: Path, told: bool) -> None:
    """By what sidecars say of them, or by the files where the sidecars are of a version that did not."""
    for pixel, names in enumerate([["object_id"], ["id"]]):
        partition, table = Partition(0, pixel), pa.table({name: [1] for name in names})
        with hats.write_partition(tmp_path, partition, table.schema) as writer:
            writer.write(table)
        if not told:
            said = hats.sidecar(tmp_path, partition)
            write_json(partition.sidecar(tmp_path), {key: said[key] for key in said if key != "schema"})
    with pytest.raises(CatalogError, match="its columns differ"):
        hats.finish(tmp_path, "test", [Partition(0, 0), Partition(0, 1)])


def test_an_empty_catalogue_and_an_unfinished_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no partition"):
        hats.finish(tmp_path, "test", [])
    with pytest.raises(CatalogError, match="not a finished HATS catalogue"):
        hats.partitions(tmp_path)


def test_an_atomic_write_keeps_the_old_file_when_the_new_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_json(path, {"old": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"new": float("nan")})
    assert '"old": 1' in path.read_text()
    with pytest.raises(OSError, match="No such"), atomic_write(path):
        pass  # nothing was written
    assert [p.name for p in tmp_path.iterdir()] == ["facts.json"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(1, 60))
def test_shards_hold_every_partition_once_and_in_order(tmp_path_factory, sizes: list[int], shard_rows: int) -> None:
    folder = tmp_path_factory.mktemp("cat")
    found = [Partition(0, pixel) for pixel in range(len(sizes))]
    for partition, rows in zip(found, sizes, strict=True):
        table = pa.table({sky.HEALPIX_COLUMN: np.zeros(rows, np.int64)})
        with hats.write_partition(folder, partition, table.schema) as writer:
            writer.write(table)
    hats.finish(folder, "test", found)
    plan = shards.plan(folder, shard_rows)
    assert [partition for shard in plan.values() for partition in shard] == found
    for shard in plan.values():
        assert len(shard) == 1 or sum(sizes[partition.pixel] for partition in shard) <= shard_rows
    content = {partition: f"{rows:032x}" for partition, rows in zip(found, sizes, strict=True)}
    shards.write(folder, plan, content)
    assert {number: shards.read(shards.file(folder, number)) for number in shards.numbers(folder)} == plan


def test_the_file_of_a_shard_changes_where_its_content_does(tmp_path: Path) -> None:
    one, two, three = (Partition(3, pixel) for pixel in range(3))
    shards.write(tmp_path, {0: [one], 1: [two], 2: [three]}, {one: "a", two: "b", three: "c"})
    before = {number: shards.file(tmp_path, number).stat().st_ino for number in range(3)}
    shards.write(tmp_path, {0: [one], 1: [two]}, {one: "a", two: "other"})
    assert shards.numbers(tmp_path) == [0, 1], "a shard that is no more has no file"
    assert shards.file(tmp_path, 0).stat().st_ino == before[0]
    assert shards.file(tmp_path, 1).stat().st_ino != before[1]


@given(st.floats(0, 360), st.floats(-90, 90), st.integers(0, 29))
def test_a_pixel_of_a_lower_order_holds_the_position(ra: float, dec: float, order: int) -> None:
    a, b = np.array([ra]), np.array([dec])
    assert sky.at_order(sky.healpix(a, b), order)[0] == sky.healpix(a, b, order)[0]
    vector = sky.unit_vectors(a, b)
    assert np.isclose(np.linalg.norm(vector), 1)


def test_finishing_removes_what_earlier_runs_left(tmp_path: Path) -> None:
    folder = tmp_path / "cat"
    found = catalogue(folder)
    hats.finish(folder, "test", found)
    left = found[0].file(folder).with_name(".Npix=0.parquet.1.tmp")
    left.write_bytes(b"half")
    hats.finish(folder, "test", found[:1])
    assert hats.partitions(folder) == found[:1]
    assert sorted(folder.rglob("*=*/*=*/*")) == [found[0].file(folder)]
    assert sorted((folder / "sidecars").rglob("*.json")) == [found[0].sidecar(folder)]


def test_shards_of_a_very_large_catalogue_stay_few(tmp_path: Path) -> None:
    found = [Partition(8, number) for number in range(0, 5000, 5)]
    for partition in found:
        write_json(partition.sidecar(tmp_path), {"rows": 1_000_000_000})
    (tmp_path / "partition_info.csv").write_text(
        "Norder,Npix\n" + "".join(f"{partition.order},{partition.pixel}\n" for partition in found), encoding="utf-8"
    )
    assert [len(shard) for shard in shards.plan(tmp_path, 1).values()] == [2] * shards.MOST_SHARDS
    for partition in found:
        write_json(partition.sidecar(tmp_path), {"rows": 10})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "MOST_SHARDS", 100)
        plan = shards.plan(tmp_path, 1)
        assert [partition for shard in plan.values() for partition in shard] == found
        assert len(plan) == 100
        assert len(shards.plan(tmp_path, 1000)) == 10
