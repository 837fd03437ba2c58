"""Files that changed are told by their content."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

import pytest

from zmill.catalog import sources
from zmill.catalog.files import read_json
from zmill.catalog.lock import Locked, NoLocks, hold
from zmill.release import store
from zmill.release.store import ReleaseError


def three(tmp_path: Path) -> tuple[list[Path], Path]:
    files = [tmp_path / name for name in ("a.csv", "b.csv", "c")]
    files[0].write_text("one")
    files[1].write_text("two")
    files[2].mkdir()
    (files[2] / "part.csv").write_text("three")
    return files, tmp_path / "known" / "manifest.json"


def test_only_content_counts_and_bytes_are_read_only_where_a_file_looks_different(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, manifest = three(tmp_path)
    first = sources.digest(files, manifest, tmp_path)
    assert sources.digest(files, manifest, tmp_path) == first, "before a stage has read them"
    sources.keep(sources.look(files, manifest), manifest)
    assert sources.digest(files, manifest, tmp_path) == first
    read: list[Path] = []
    hash_of = sources.file_hash
    monkeypatch.setattr(sources, "file_hash", lambda path: read.append(path) or hash_of(path))
    os.utime(files[0], (1, 1))  # backwards
    os.utime(files[2] / "part.csv", (2e9, 2e9))
    assert sources.digest(files, manifest, tmp_path) == first
    assert read == [files[0], files[2] / "part.csv"]
    assert sources.digest(files, manifest, tmp_path) == first and len(read) == 2, "touched files are read once"
    files[1].write_text("TWO")
    assert sources.digest(files, manifest, tmp_path) != first
    files[1].write_text("two")
    assert sources.digest(files, manifest, tmp_path) == first
    assert sources.digest(files[:2], manifest, tmp_path) != first != sources.digest(files[::-1], manifest, tmp_path)
    (files[2] / "more.csv").write_text("")
    assert sources.digest(files, manifest, tmp_path) != first


def test_the_folder_of_the_files_may_be_renamed_and_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, manifest = three(tmp_path)
    first = sources.digest(files, manifest, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert sources.digest([file.relative_to(tmp_path) for file in files], manifest, "") == first
    monkeypatch.chdir(tmp_path.parent)
    named = [Path(tmp_path.name, file.name) for file in files]
    assert sources.digest(named, manifest, tmp_path.name) == first
    sources.keep(sources.look(files, manifest), manifest)
    for file in files[:2]:
        os.utime(file, (1, 1))
    assert sources.digest(named, manifest, tmp_path.name) == first, "the same content by another path"
    assert set(read_json(manifest)) >= {str(file) for file in named}
    files[0].write_text("ONE")
    assert sources.digest(named, manifest, tmp_path.name) != first


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a.csv": {}}', '{"a.csv": 1}'])
def test_a_damaged_manifest_is_as_none(tmp_path: Path, damage: str) -> None:
    files, manifest = three(tmp_path)
    first = sources.digest(files, manifest, tmp_path)
    sources.keep(sources.look(files, manifest), manifest)
    manifest.write_text(damage)
    assert sources.digest(files, manifest, tmp_path) == first


def test_a_look_without_note_writes_nothing(tmp_path: Path) -> None:
    files, manifest = three(tmp_path)
    sources.keep(sources.look(files, manifest), manifest)
    kept = manifest.read_bytes()
    os.utime(files[0], (1, 1))
    first = sources.digest(files, manifest, tmp_path, note=False)
    assert manifest.read_bytes() == kept
    assert sources.digest(files, manifest, tmp_path) == first and manifest.read_bytes() != kept
    files[0].unlink()
    assert sources.digest(files, manifest, tmp_path) != first


def test_a_changed_file_keeps_its_token_once_it_was_read(tmp_path: Path) -> None:
    files, manifest = three(tmp_path)
    sources.keep(sources.look(files, manifest), manifest)
    files[0].write_text("another")
    told = sources.digest(files, manifest, tmp_path)
    sources.keep(sources.look(files, manifest), manifest)
    assert sources.digest(files, manifest, tmp_path) == told
    assert all(entry["content"] for entry in read_json(manifest).values())


def test_a_file_that_is_written_to_while_it_is_read_is_refused(tmp_path: Path) -> None:
    files, manifest = three(tmp_path)
    looked = sources.look(files, manifest)
    files[0].write_text("one more")
    with pytest.raises(sources.SourceChanged, match=r"a\.csv: was written to while it was read"):
        sources.keep(looked, manifest)
    assert not manifest.exists()


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    with hold(tmp_path / "x" / ".lock"), pytest.raises(Locked, match=f"^{os.getpid()} on {socket.gethostname()}$"):
        hold(tmp_path / "x" / ".lock")
    hold(tmp_path / "x" / ".lock").close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(NoLocks, match=rf"\.lock: cannot be locked \({os.strerror(number)}\): put results_dir on"):
        hold(tmp_path / ".lock")
    with pytest.raises(ReleaseError, match="cannot be locked"), store.lock(tmp_path):
        pass
