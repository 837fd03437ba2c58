"""Where releases are: `releases/<id>/`, the link `current`, the lock that lets one process at a time change them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zmill.catalog.files import read_json, whole, write_json
from zmill.catalog.lock import Locked, NoLocks, hold

RECORD = "release.json"
"""In every release: what it holds, with the hash of every file."""
VERIFIED = "verified.json"
"""In the folder of releases: the files of the one that was published last, as they were when they had been read."""
HOLD = "hold.json"
"""In the folder of releases after a rollback: nothing is published."""

Record = dict[str, Any]


class ReleaseError(Exception):
    """What would be released, or was, is not what it should be; the release that is current stays."""


def releases(results: Path) -> Path:
    """The folder of all releases."""
    return results / "releases"


def folder(results: Path, release: str) -> Path:
    """The folder of one release."""
    return releases(results) / release


def resolve(results: Path) -> Path | None:
    """The folder that `current` points at now, or None before the first release.

    A reader calls this once and reads everything below the answer: `current` may be switched while it reads.
    """
    link = results / "current"
    if not link.is_symlink():
        return None
    target = results / link.readlink()
    return target if (target / RECORD).is_file() else None


def current(results: Path) -> Record | None:
    """The record of the current release, or None before the first one."""
    found = resolve(results)
    return read_json(found / RECORD) if found else None


def published(results: Path) -> list[Record]:
    """The records of all releases, oldest first (by their sequence number: clocks may go backwards)."""
    records = [
        read_json(path) for path in releases(results).glob(f"*/{RECORD}") if not path.parent.name.startswith(".")
    ]
    return sorted(records, key=lambda record: record["sequence"])


@contextmanager
def lock(results: Path) -> Iterator[None]:
    """Hold the right to change releases.

    Raises
    ------
    ReleaseError
        Where another process holds it, or the file system has no locks. The lock ends with its process, however that ends.
    """
    try:
        handle = hold(releases(results) / ".lock")
    except Locked as holder:
        raise ReleaseError(
            f"{releases(results)}: another release or rollback is under way (process {holder}); "
            "wait for its end and start this one again"
        ) from None
    except NoLocks as error:
        raise ReleaseError(str(error)) from None
    with handle:
        yield


def switch(results: Path, release: str) -> None:
    """Point `current` at a release, in one step that a reader sees before or after and never in between."""
    temporary = results / ".current.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(Path("releases") / release)
    os.replace(temporary, results / "current")
    sync_folder(results)


def copy_record(results: Path, release: str) -> None:
    """Put a copy of a release's record where the workflow looks for it."""
    with whole(results / RECORD) as temporary:
        shutil.copyfile(folder(results, release) / RECORD, temporary)


def held(results: Path) -> dict[str, str] | None:
    """What a rollback left, where publishing was not resumed since: `since`, and the releases that it went `back_from` and `to`."""
    path = releases(results) / HOLD
    return read_json(path) if path.is_file() else None


def hold_back(results: Path, back_from: str, to: str) -> None:
    """Let nothing be published from now on."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(releases(results) / HOLD, {"since": now, "back_from": back_from, "to": to})


def let_go(results: Path) -> None:
    """Let releases be published again."""
    (releases(results) / HOLD).unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a folder of `releases/`; it loses its name first, so that no half-removed release can be seen."""
    condemned = path if path.name.startswith(".") else path.with_name(f".removed-{path.name}")
    if condemned != path:
        path.rename(condemned)
    shutil.rmtree(condemned)


def clear_unfinished(results: Path) -> None:
    """Remove what a killed run left: half-built and half-removed releases, half-written notes."""
    for path in releases(results).glob(".*-*/"):
        remove(path)
    for path in releases(results).glob(".*.tmp"):
        path.unlink()


def prune(results: Path, keep: int, kept: str) -> list[str]:
    """Remove all but the newest `keep` releases; `kept`, the current one, is always among those that stay.

    Returns
    -------
    The ids of the releases that are gone.
    """
    others = [record["release"] for record in published(results) if record["release"] != kept]
    gone = others[: max(len(others) - (keep - 1), 0)]
    for release in gone:
        remove(folder(results, release))
    return gone


def sync_folder(path: Path) -> None:
    """Bring a folder's list of names to the disk, so that it survives a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
