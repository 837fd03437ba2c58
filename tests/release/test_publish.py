"""Publication at the contract: what a reader of `current` finds, what a release costs, what is refused."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from release_sky import SKY, fill, write

from zmill.catalog import hats
from zmill.catalog.files import atomic_write, file_hash, read_json, write_json
from zmill.catalog.hats import Partition
from zmill.release import publish as publishing
from zmill.release import store
from zmill.release import verify as verifying
from zmill.release.publish import publish
from zmill.release.store import ReleaseError
from zmill.release.verify import verify

SETTINGS = {"config": {"seed": 1}, "survey": {"bands": ["g", "r"]}}


def release(results: Path, keep: int = 5) -> dict:
    return publish(results, keep, SETTINGS, lambda line: None)


def test_a_release_holds_everything_and_its_record_says_so(results: Path) -> None:
    record = release(results)
    folder = results / "current"
    assert str(folder.readlink()) == f"releases/{record['release']}"
    assert record["release"].endswith(record["content_hash"][:12])
    assert read_json(folder / "release.json") == read_json(results / "release.json") == record
    assert record["rows"] == 120 and record["previous"] is None and record["settings"] == SETTINGS
    for name, told in record["files"].items():
        assert file_hash(folder / name) == told
    assert {"report.html", "leaderboard.csv", "best.json", "model/model.json", "pdf/pdf.json"} <= set(record["files"])
    for catalog in ("photoz", "pdf"):
        assert hats.partitions(folder / catalog) == hats.partitions(results / catalog)
        for partition in SKY:
            entry = record["catalogs"][catalog]["partitions"][partition.name]
            assert file_hash(partition.file(folder / catalog)) == entry["xxh3_128"]
            assert entry["model"] == "made by 1.0"


def test_released_catalogs_are_valid_hats(results: Path) -> None:
    from hats.io.validation import is_valid_catalog

    release(results)
    for catalog in ("photoz", "pdf"):
        assert is_valid_catalog(results / "current" / catalog, strict=True)


def test_releasing_the_same_content_again_changes_nothing(results: Path, messages) -> None:
    lines, log = messages
    first = release(results)
    (results / "report.html").write_text("<!doctype html><p>the same numbers, drawn later</p>")
    again = publish(results, 5, SETTINGS, log)
    assert again == first
    assert "nothing changed" in lines[0]
    assert len(store.published(results)) == 1


def test_only_what_changed_takes_space(results: Path) -> None:
    first = release(results)
    for partition in SKY:  # all rewritten, one of them with other rows
        write(results, "photoz", partition, 2.0 if partition == SKY[1] else 1.0)
    second = release(results)
    assert second["changes"]["since"] == first["release"]
    assert second["changes"]["photoz"] == {"added": [], "changed": [SKY[1].name], "removed": [], "unchanged": 2}
    assert second["changes"]["pdf"]["unchanged"] == 3 and not second["changes"]["model"]
    old, new = (store.folder(results, record["release"]) for record in (first, second))
    for partition in SKY:
        shared = partition.file(old / "photoz").samefile(partition.file(new / "photoz"))
        assert shared == (partition != SKY[1])
    assert (old / "model/tensors.safetensors").samefile(new / "model/tensors.safetensors")


def test_partitions_that_come_and_go_are_listed(results: Path) -> None:
    release(results)
    fill(results, sky=[SKY[0], SKY[2], Partition(3, 400)])
    changes = release(results)["changes"]["pdf"]
    assert changes == {"added": [Partition(3, 400).name], "changed": [], "removed": [SKY[1].name], "unchanged": 2}
    assert not SKY[1].file(results / "current" / "pdf").exists()


def test_the_working_catalog_can_be_written_again_without_touching_the_release(results: Path) -> None:
    record = release(results)
    assert SKY[0].file(results / "photoz").samefile(SKY[0].file(results / "current/photoz"))
    fill(results, version=3.0)
    verify(store.folder(results, record["release"]), record)


def test_files_are_copied_where_they_cannot_be_linked(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def across(source: object, target: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", across)
    record = release(results)
    assert not SKY[0].file(results / "photoz").samefile(SKY[0].file(results / "current/photoz"))
    verify(results / "current", record)


def test_without_pdfs_only_points_are_released(results: Path) -> None:
    (results / "pdf" / "partition_info.csv").unlink()
    record = release(results)
    assert set(record["catalogs"]) == {"photoz"} and not (results / "current/pdf").exists()


@pytest.mark.parametrize("catalog", ["photoz", "pdf"])
def test_bytes_that_are_not_the_sidecars_are_refused(results: Path, catalog: str) -> None:
    first = release(results)
    fill(results, version=2.0)
    path = SKY[2].file(results / catalog)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(ReleaseError, match=f"{catalog}/{SKY[2].name}: content hash"):
        release(results)
    assert store.resolve(results) == store.folder(results, first["release"])
    assert [record["release"] for record in store.published(results)] == [first["release"]]
    write(results, catalog, SKY[2], 2.0)
    assert release(results)["previous"] == first["release"]


def test_rows_that_are_not_the_surveys_are_refused(results: Path) -> None:
    write(results, "photoz", SKY[1], 1.0, rows=39)
    hats.finish(results / "photoz", "photoz", SKY)
    with pytest.raises(ReleaseError, match=f"{SKY[1].name}: 39 rows, the survey has 40"):
        release(results)
    hats.finish(results / "photoz", "photoz", SKY[:1])
    with pytest.raises(ReleaseError, match=f"{SKY[1].name}: in the survey .* and not here"):
        release(results)
    assert store.resolve(results) is None


def test_a_sidecar_that_lies_about_its_rows_is_refused(results: Path) -> None:
    for catalog in ("survey", "photoz", "pdf"):
        sidecar = SKY[0].sidecar(results / catalog)
        write_json(sidecar, read_json(sidecar) | {"rows": 41})
        hats.finish(results / catalog, catalog, SKY)
    with pytest.raises(ReleaseError, match=f"photoz/{SKY[0].name}: 40 rows, expected 41"):
        release(results)


def test_rows_outside_their_pixel_are_refused(results: Path) -> None:
    partition = SKY[0]
    table = pq.read_table(partition.file(results / "photoz"))
    shifted = table.set_column(0, "_healpix_29", [[value + (1 << 60) for value in table["_healpix_29"].to_pylist()]])
    with hats.write_partition(results / "photoz", partition, table.schema) as out:
        out.write(shifted.cast(table.schema))
    with pytest.raises(ReleaseError, match="rows out of its pixel"):
        release(results)


@pytest.mark.parametrize(
    "path", ["report.html", "evaluation/best.json", "champion/ab12/model.json", "photoz/hats.properties"]
)
def test_what_is_missing_is_named(results: Path, path: str) -> None:
    (results / path).unlink()
    with pytest.raises(ReleaseError, match=Path(path).name):
        release(results)


@pytest.mark.parametrize("content", [b"rot", None])
def test_a_damaged_file_of_the_current_release_is_put_back_from_the_working_folder(
    results: Path, content: bytes | None
) -> None:
    record = release(results)
    path = SKY[0].file(results / "current/photoz")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert release(results) == record
    verify(results / "current", record)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that are read to be verified, from now on."""
    found: list[str] = []

    def reading(path: Path) -> str:
        found.append(path.name)
        return file_hash(path)

    monkeypatch.setattr(verifying, "file_hash", reading)
    monkeypatch.setattr(verifying, "TURNS", 10**9)
    return found


def partitions_read(found: list[str]) -> list[str]:
    names = sorted(name for name in found if name.startswith("Npix"))
    found.clear()
    return names


def test_partitions_that_were_read_once_are_trusted_while_they_are_the_same_files(
    results: Path, read: list[str]
) -> None:
    release(results)
    assert len(partitions_read(read)) == 2 * len(SKY)
    write(results, "photoz", SKY[1], 2)
    hats.finish(results / "photoz", "test photoz", SKY)
    release(results)
    assert partitions_read(read) == [f"Npix={SKY[1].pixel}.parquet"]
    release(results)
    assert partitions_read(read) == []
    (store.releases(results) / "verified.json").unlink()
    release(results)
    assert len(partitions_read(read)) == 2 * len(SKY), "as if nothing were known"
    os.utime(SKY[0].file(results / "current" / "pdf"))
    release(results)
    assert partitions_read(read) == [f"Npix={SKY[0].pixel}.parquet"]
    publishing.audit(results, print)
    assert len(partitions_read(read)) == 2 * len(SKY)


def test_another_schema_is_compared_with_trusted_partitions_too(results: Path) -> None:
    release(results)
    common = results / "photoz" / "dataset" / "_common_metadata"
    schema = pq.read_schema(common)
    with atomic_write(common) as temporary:
        pq.write_metadata(schema.append(pa.field("new", pa.int8())), temporary)
    write(results, "photoz", SKY[1], 2)
    with pytest.raises(ReleaseError, match="its columns differ from dataset/_common_metadata"):
        release(results)


def test_what_the_disk_has_lost_is_found_by_an_audit_and_within_some_releases(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte that is another one, with the date that it had."""
    monkeypatch.setattr(verifying, "TURNS", 5)
    release(results)
    path = SKY[0].file(results / "current" / "photoz")
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ReleaseError, match=f"damaged: .*{SKY[0].name}: content hash"):
        publishing.audit(results, print)
    with pytest.raises(ReleaseError, match=f"{SKY[0].name}: content hash"):
        for version in range(2, 8):
            write(results, "photoz", SKY[1], version)
            release(results)


def test_two_at_once_the_second_refuses(results: Path) -> None:
    with store.lock(results), pytest.raises(ReleaseError, match=f"under way .process {os.getpid()}"):
        release(results)
    assert release(results)["sequence"] == 1


def test_the_lock_is_the_kernels(results: Path) -> None:
    """A process that dies leaves no lock: the file alone means nothing."""
    store.releases(results).mkdir()
    (store.releases(results) / ".lock").write_text("12345")
    release(results)
    with open(store.releases(results) / ".lock") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_old_releases_go_and_current_never(results: Path) -> None:
    made = []
    for version in range(1, 6):
        fill(results, version)
        made.append(release(results, keep=2)["release"])
    assert [record["release"] for record in store.published(results)] == made[-2:]
    assert release(results, keep=1)["release"] == made[-1]
    assert sorted(path.name for path in store.releases(results).iterdir()) == [".lock", made[-1], "verified.json"]


def test_a_reader_in_a_loop_never_sees_a_mix(results: Path) -> None:
    """Every release has one number in all of its rows; a reader that resolves `current` once finds only that one."""
    (results / "pdf" / "partition_info.csv").unlink()
    release(results, keep=30)
    stop, seen, faults = threading.Event(), [], []

    def read() -> None:
        while not stop.is_set():
            folder = store.resolve(results)
            if folder is None:
                faults.append("no current")
                continue
            files = [partition.file(folder / "photoz") for partition in hats.partitions(folder / "photoz")]
            values = {value for file in files for value in pq.ParquetFile(file).read(["z_mode"])["z_mode"].to_pylist()}
            if len(values) != 1:
                faults.append(f"{folder.name}: {values}")
            seen.append((folder.name, *values))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for version in range(2, 22):
            for partition in SKY:
                write(results, "photoz", partition, version)
            release(results, keep=30)
    finally:
        stop.set()
        reader.join()
    assert not faults
    assert len({name for name, _ in seen}) == len(set(seen)) >= 2


def test_a_clock_that_goes_backwards_does_not_lose_the_order(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import datetime

    days = ["2030-05-01", "2029-01-01", "2028-01-01"]

    class Clock:
        @classmethod
        def now(cls, zone: object) -> datetime:
            return datetime.fromisoformat(days.pop(0))

    monkeypatch.setattr(publishing, "datetime", Clock)
    made = []
    for version in (1, 2, 3):
        fill(results, version)
        made.append(release(results, keep=2)["release"])
    assert [record["release"] for record in store.published(results)] == made[1:]
    assert store.current(results)["release"] == made[2] and made[2].startswith("2028-01-01")
