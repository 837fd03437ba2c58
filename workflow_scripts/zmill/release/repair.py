"""Damaged releases: what is put back from a file of the same content, and what is lost."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from zmill.catalog.files import file_hash, sync_folder, temporary_path
from zmill.release import store
from zmill.release.store import ReleaseError
from zmill.release.verify import Fault

READ_ONLY = 0o444
NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES}
"""What a file system answers that cannot link here; the file is copied then."""


def repair(results: Path, release: str, found: Iterable[Fault], say: Callable[[str], None]) -> list[Fault]:
    """Put back what is damaged or missing in a release, where a file of the same content is in the working folder or in
    another release; the release is then what its record says, as it always was.

    Returns
    -------
    What could not be put back.
    """
    folder, left = store.folder(results, release), []
    for fault in found:
        source = _same(results, folder, fault)
        if source is None:
            left.append(fault)
            continue
        put(source, folder / fault.name)
        say(f"{folder / fault.name}: was damaged, put back from {source}")
    return left


def put(source: Path, target: Path) -> None:
    """A file of a release as a copy of another one, shared where both are files of partitions."""
    temporary = temporary_path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if source.suffix == ".parquet":
            link(source, temporary)
        else:
            copy(source, temporary)
        os.replace(temporary, target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """The same file under another name, read-only; a copy where the file system cannot link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise ReleaseError(f"{source}: cannot be released ({error.strerror})") from error
        copy(source, target)
    else:
        target.chmod(READ_ONLY)


def copy(source: Path, target: Path) -> None:
    """A copy, read-only, that is on the disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    with open(target, "rb") as handle:
        os.fsync(handle.fileno())
    target.chmod(READ_ONLY)


def _same(results: Path, folder: Path, fault: Fault) -> Path | None:
    """A file with the content that a release's file should have."""
    if fault.known is None or not _inside(folder, fault.name):
        return None
    for path in _places(results, folder, fault.name):
        if path.is_file() and file_hash(path) == fault.known:
            return path
    return None


def _inside(folder: Path, name: str) -> bool:
    """Whether a record's name of a file is one below the release, and leads out of it through no link."""
    plain = PurePosixPath(name)
    if plain.is_absolute() or ".." in plain.parts:
        return False
    return (folder / name).parent.resolve().is_relative_to(folder.resolve())


def _places(results: Path, folder: Path, name: str) -> Iterator[Path]:
    yield results / name
    yield results / "evaluation" / name
    if name.startswith("model/"):
        yield from sorted(results.glob(f"champion/*/{Path(name).name}"))
    for other in store.ids(results):
        if other != folder.name:
            yield store.folder(results, other) / name
