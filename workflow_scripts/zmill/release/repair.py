"""Repair of damaged releases from files of equal content."""

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
"""Errors of a file system that cannot create the hard link; the file is then copied."""


def repair(results: Path, release: str, found: Iterable[Fault], log: Callable[[str], None]) -> list[Fault]:
    """Restore damaged or missing files of a release from files of equal content in the results folder or in another release.

    Returns
    -------
    The faults that could not be repaired.
    """
    folder, left = store.folder(results, release), []
    for fault in found:
        source = _same(results, folder, fault)
        if source is None:
            left.append(fault)
            continue
        put(source, folder / fault.name)
        log(f"{folder / fault.name}: was damaged, put back from {source}")
    return left


def put(source: Path, target: Path) -> None:
    """Put a copy of a file into a release; files of partitions are hard links."""
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
    """Create a read-only hard link, or a copy where the file system cannot link."""
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
    """Create a read-only copy, written to the disk (fsync)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    with open(target, "rb") as handle:
        os.fsync(handle.fileno())
    target.chmod(READ_ONLY)


def _same(results: Path, folder: Path, fault: Fault) -> Path | None:
    """A file with the recorded content of a release's file; None where there is none."""
    if fault.known is None or not _inside(folder, fault.name):
        return None
    for path in _candidates(results, folder, fault.name):
        if path.is_file() and file_hash(path) == fault.known:
            return path
    return None


def _inside(folder: Path, name: str) -> bool:
    """Whether a recorded file name lies inside the release and does not leave it through a link."""
    plain = PurePosixPath(name)
    if plain.is_absolute() or ".." in plain.parts:
        return False
    return (folder / name).parent.resolve().is_relative_to(folder.resolve())


def _candidates(results: Path, folder: Path, name: str) -> Iterator[Path]:
    yield results / name
    yield results / "evaluation" / name
    if name.startswith("model/"):
        yield from sorted(results.glob(f"champion/*/{Path(name).name}"))
    for other in store.ids(results):
        if other != folder.name:
            yield store.folder(results, other) / name
