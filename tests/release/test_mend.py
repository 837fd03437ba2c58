"""Releases whose files, records or links are damaged, and folders that hold what is nobody's release: no dead end, no loss."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from release_sky import SKY, fill, write

from zmill.catalog import hats
from zmill.catalog.files import read_json, write_json
from zmill.release import store
from zmill.release.mend import mend
from zmill.release.provenance import public
from zmill.release.publish import audit, publish
from zmill.release.rollback import resume, rollback
from zmill.release.store import ReleaseError
from zmill.release.verify import verify


def release(results: Path, keep: int = 5) -> dict:
    return publish(results, keep, {"config": {"seed": 1}}, lambda line: None)


def flip(path: Path) -> None:
    """Another byte in the middle, in the file itself: every name of it has it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.write(content)


def whole_current(results: Path) -> dict:
    record = store.current(results)
    assert record is not None
    verify(store.folder(results, record["release"]), record)
    return record


@pytest.mark.parametrize("catalog", ["photoz", "pdf"])
def test_a_damaged_byte_shared_by_release_and_working_folder_is_repaired_by_prediction(
    results: Path, catalog: str
) -> None:
    record = release(results)
    path = SKY[1].file(results / catalog)
    assert path.samefile(SKY[1].file(results / "current" / catalog))
    flip(path)
    with pytest.raises(ReleaseError, match=f"damaged.*{SKY[1].name}.*snakemake --cores 2 mend"):
        audit(results, print)
    write_json(results / "progress" / "release.json", {})
    assert "the next run replaces the release" in "\n".join(mend(results, every_byte=True))
    assert not (results / "progress" / "release.json").exists(), "the rule `release` runs again"
    write(results, catalog, SKY[1], 1.0)  # as the next run does
    assert release(results) == record
    whole_current(results)
    assert path.samefile(SKY[1].file(results / "current" / catalog))


def test_a_lost_file_of_the_current_release_leads_to_another_release(results: Path) -> None:
    first = release(results)
    flip(results / "current" / "report.html")
    (results / "report.html").write_text("<!doctype html><p>the same numbers, drawn later</p>")
    second = release(results)
    assert second["release"] == f"{first['release']}-2" and second["content_hash"] == first["content_hash"]
    whole_current(results)
    assert release(results) == second


def test_what_is_missing_is_put_back_without_reading_everything(results: Path) -> None:
    record = release(results)
    SKY[0].file(results / "current" / "photoz").unlink()
    (results / "current" / "model" / "tensors.safetensors").unlink()
    found = mend(results)
    assert len(found) == 2 and all("put back from" in line for line in found)
    assert whole_current(results) == record
    assert mend(results) == mend(results, every_byte=True) == []


def test_an_older_release_is_mended_from_a_later_one(results: Path) -> None:
    first = release(results)
    write(results, "photoz", SKY[1], 2.0)
    hats.finish(results / "photoz", "test photoz", SKY)
    release(results)
    old = store.folder(results, first["release"])
    SKY[2].file(old / "pdf").unlink()
    lost = SKY[1].file(old / "photoz")
    flip(lost)
    found = mend(results, every_byte=True)
    assert len(found) == 2 and any(str(lost) in line and "the release stays as it is" in line for line in found)
    with pytest.raises(ReleaseError, match=SKY[1].name):
        rollback(results, print)
    whole_current(results)


@pytest.mark.parametrize("content", ["", "{", '{"release": "another"}'])
def test_a_damaged_record_is_restored_from_its_copy_or_the_release_is_published_again(
    results: Path, content: str
) -> None:
    record = release(results)
    path = results / "current" / "release.json"
    path.chmod(0o644)
    path.write_text(content)
    with pytest.raises(ReleaseError, match=r"release\.json.*snakemake --cores 2 mend"):
        release(results)
    mend(results)
    assert whole_current(results) == record
    path.chmod(0o644)
    path.write_text(content)
    (results / "release.json").write_text("{}")
    mend(results)
    assert (path.parent / "release.json.damaged").is_file()
    assert release(results)["rows"] == record["rows"]
    whole_current(results)


def test_the_link_is_put_back_or_the_next_run_makes_a_release(results: Path) -> None:
    record = release(results)
    (results / "current").unlink()
    mend(results)
    assert whole_current(results) == record
    (results / "current").unlink()
    (results / "release.json").unlink()
    write_json(results / "progress" / "release.json", {})
    mend(results)
    assert not (results / "progress" / "release.json").exists()
    assert release(results)["content_hash"] == whole_current(results)["content_hash"]


@pytest.mark.parametrize("target", ["..", "releases/../..", "/tmp"])
def test_a_link_out_of_the_releases_is_refused(results: Path, target: str) -> None:
    release(results)
    (results / "current").unlink()
    (results / "current").symlink_to(target)
    with pytest.raises(ReleaseError, match=r"points at .*, which is no release: remove the link"):
        release(results)


def test_a_damaged_hold_still_holds(results: Path) -> None:
    release(results)
    fill(results, 2.0)
    release(results)
    rollback(results, lambda line: None)
    (store.releases(results) / "hold.json").write_text("{")
    with pytest.raises(ReleaseError, match=r"not published.*hold\.json is damaged.*snakemake resume"):
        release(results)
    resume(results, lambda line: None)
    release(results)


def test_nothing_but_releases_is_removed_whatever_records_say(results: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    made = []
    for version in (1.0, 2.0):
        fill(results, version)
        made.append(release(results)["release"])
    path = store.folder(results, made[0]) / "release.json"
    tampered = read_json(path) | {"release": "../../../outside"}
    path.chmod(0o644)
    write_json(path, tampered, sort_keys=False)
    linked = store.releases(results) / "2020-01-01-0123456789ab"
    linked.symlink_to(outside)
    write_json(outside / "release.json", tampered | {"release": linked.name, "sequence": 0})
    for name in (".snapshot-1", ".building-site", "x.bak"):
        (store.releases(results) / name).mkdir()
        (store.releases(results) / name / "kept").write_text("mine")
    (store.releases(results) / ".DS_Store").write_text("mine")
    fill(results, 3.0)
    messages: list[str] = []
    publish(results, 1, {}, messages.append)
    assert (outside / "precious").read_text() == "mine" and linked.is_symlink()
    left = {path.name for path in store.releases(results).iterdir()}
    assert {".snapshot-1", ".building-site", "x.bak", ".DS_Store", linked.name} <= left
    assert sum("x.bak" in line for line in messages) == 1


def test_foreign_files_next_to_a_catalogue_are_not_released(results: Path) -> None:
    strange = [
        results / "photoz" / "notes.txt",
        results / "photoz" / "dataset" / "x.parquet",
        results / "pdf" / ".DS_Store",
    ]
    strange.append(SKY[0].file(results / "photoz").with_name("Npix=1 (copy).bak"))
    for path in strange:
        path.write_text("mine")
    hats.finish(results / "photoz", "test photoz", SKY)
    messages: list[str] = []
    record = publish(results, 5, {}, messages.append)
    assert all(path.read_text() == "mine" for path in strange)
    released = {path.name for path in (results / "current").rglob("*")}
    assert released.isdisjoint(path.name for path in strange)
    line = next(line for line in messages if "left alone" in line)
    assert all(str(path) in line for path in strange)
    (results / "current" / "photoz" / ".DS_Store").write_text("a reader's")
    verify(results / "current", record)
    (results / "current" / "photoz" / "dataset" / "x.parquet").write_text("rows?")
    with pytest.raises(ReleaseError, match=r"photoz/dataset/x\.parquet: not in the record"):
        verify(results / "current", record)


def test_a_release_names_no_path_user_host_or_password(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "kestrel07")
    config = {"data_dir": "/users/jane/data", "results_dir": str(results.parent), "survey": "deep"}
    address = "https://jane:swordfish@host.example/tap?token=abracadabra"
    survey = {"files": ["/users/jane/data/x.fits", f"{results}/y.fits"], "labels": [{"url": address}]}
    publish(results, 5, {"config": config, "survey": survey}, lambda line: None)
    for path in (results / "current").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for planted in ("jane", "swordfish", "abracadabra", str(results.parent), "kestrel07"):
                assert planted.encode() not in content, path


def test_paths_are_not_released() -> None:
    given = {
        "config": {"data_dir": "/users/jane/data", "results_dir": "/scratch/jane/results", "seed": 3, "survey": "deep"},
        "survey": {"files": ["/users/jane/data/deep/*.fits", "/mnt/nfs1/x.fits", "tiles/*.parquet"], "bands": ["g"]},
    }
    assert public(given) == {
        "config": {"data_dir": "…", "results_dir": "…", "seed": 3, "survey": "deep"},
        "survey": {"files": ["deep/*.fits", "…/x.fits", "tiles/*.parquet"], "bands": ["g"]},
    }
