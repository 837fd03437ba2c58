"""The folder of releases: `releases/<id>/`, the link `current`, and the lock by which one process at a time changes them.

Only folders with the name of a release are read or removed; links and all other files in `releases/` are ignored.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zmill.catalog.files import MEND, Damaged, atomic_write, read_json, sync_folder, write_json
from zmill.catalog.lock import Locked, NoLocks, hold
from zmill.workflow.job import log

RECORD = "release.json"
"""In every release: the record of its contents, with the hash of every file."""
VERIFIED = "verified.json"
"""In the folder of releases: file stamps of the release that was verified last."""
HOLD = "hold.json"
"""In the folder of releases after a rollback: it stops publishing."""
ID = re.compile(r"\d{4}-\d\d-\d\d-[0-9a-f]{12}(-\d+)?")
"""Name of a release: date, first digits of the content hash, and a number where the name exists already."""
UNFINISHED = re.compile(rf"\.(building|removed)-{ID.pattern}")

Record = dict[str, Any]


class ReleaseError(Exception):
    """A release, or a candidate for one, is damaged or incomplete; the current release stays."""


def releases(results: Path) -> Path:
    """The folder of all releases."""
    return results / "releases"


def folder(results: Path, release: str) -> Path:
    """The folder of one release."""
    if not ID.fullmatch(release):
        raise ReleaseError(f"{release!r} is not the name of a release in {releases(results)}")
    return releases(results) / release


def ids(results: Path) -> list[str]:
    """Names of the existing releases, complete or not."""
    return sorted(path.name for path in _inside(results) if ID.fullmatch(path.name) and _is_folder(path))


def foreign(results: Path) -> list[Path]:
    """Other files in the folder of releases; they are not changed."""
    ours = {".lock", VERIFIED, HOLD}
    return sorted(
        path
        for path in _inside(results)
        if path.name not in ours
        and not (_is_folder(path) and (ID.fullmatch(path.name) or UNFINISHED.fullmatch(path.name)))
    )


def _inside(results: Path) -> list[Path]:
    return list(releases(results).iterdir()) if releases(results).is_dir() else []


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def resolve(results: Path) -> Path | None:
    """The folder that `current` points at now, or None before the first release.

    A reader calls this once and reads all files below the returned folder, because `current` may be switched meanwhile.

    Raises
    ------
    ReleaseError
        Where `current` is not a link to a release.
    """
    link = results / "current"
    if not link.is_symlink():
        if link.exists():
            raise ReleaseError(f"{link}: is no link to a release: move it away, then run again")
        return None
    target = results / link.readlink()
    if target.parent != releases(results) or not ID.fullmatch(target.name):
        raise ReleaseError(f"{link}: points at {link.readlink()}, which is no release: remove the link, then run again")
    return target if _is_folder(target) and (target / RECORD).is_file() else None


def read(path: Path) -> Record:
    """The record of the release in a folder.

    Raises
    ------
    ReleaseError
        Where it is damaged, or not of this folder.
    """
    try:
        record: Record = read_json(path / RECORD)
    except (Damaged, OSError) as error:
        raise ReleaseError(str(error)) from None
    if not isinstance(record, dict) or record.get("release") != path.name:
        raise ReleaseError(f"{path / RECORD}: is not the record of this release: {MEND}")
    return record


def current(results: Path) -> Record | None:
    """The record of the current release, or None before the first one.

    Raises
    ------
    ReleaseError
        As for `resolve` and `read`.
    """
    found = resolve(results)
    return read(found) if found else None


def published(results: Path) -> list[Record]:
    """The records of all releases, oldest first (by their sequence number: clocks may go backwards); damaged ones are logged."""
    records = []
    for release in ids(results):
        if not (folder(results, release) / RECORD).is_file():
            continue
        try:
            records.append(read(folder(results, release)))
        except ReleaseError as error:
            log.warning("%s", error)
    return sorted(records, key=lambda record: record["sequence"])


@contextmanager
def lock(results: Path) -> Iterator[None]:
    """Hold the lock on the releases.

    Raises
    ------
    ReleaseError
        Where another process holds it, or the file system has no locks. The lock ends with its process.
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
    """Point `current` at a release, atomically."""
    temporary = results / ".current.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(Path("releases") / release)
    os.replace(temporary, results / "current")
    sync_folder(results)


def copy_record(results: Path, release: str) -> None:
    """Copy a release's record to the results folder, where the workflow reads it."""
    with atomic_write(results / RECORD, check=False) as temporary:
        shutil.copyfile(folder(results, release) / RECORD, temporary)


def held(results: Path) -> dict[str, str] | None:
    """The record of a rollback after which publishing was not resumed: its time `since`, and the releases `back_from` and `to`."""
    path = releases(results) / HOLD
    if not path.is_file():
        return None
    try:
        found: dict[str, str] = read_json(path)
    except Damaged:  # the rollback itself is known
        found = dict.fromkeys(("since", "back_from", "to"), f"unknown ({path} is damaged)")
    return found


def hold_back(results: Path, back_from: str, to: str) -> None:
    """Stop publishing."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(releases(results) / HOLD, {"since": now, "back_from": back_from, "to": to})


def let_go(results: Path) -> None:
    """Resume publishing."""
    (releases(results) / HOLD).unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a folder of `releases/`; it is renamed first, so that no partly removed release is visible."""
    condemned = path if path.name.startswith(".") else path.with_name(f".removed-{path.name}")
    if condemned != path:
        path.rename(condemned)
    shutil.rmtree(condemned)


def clear_unfinished(results: Path) -> None:
    """Remove the remains of a killed run: partly built and partly removed releases, and temporary files."""
    for path in _inside(results):
        if UNFINISHED.fullmatch(path.name) and _is_folder(path):
            remove(path)
        elif re.fullmatch(rf"\.({VERIFIED}|{HOLD})\..*\.tmp", path.name):
            path.unlink()


def prune(results: Path, keep: int, kept: str) -> list[str]:
    """Remove all but the newest `keep` releases; `kept`, the current one, is never removed.

    Returns
    -------
    The names of the removed releases.
    """
    others = [record["release"] for record in published(results) if record["release"] != kept]
    gone = others[: max(len(others) - (keep - 1), 0)]
    for release in gone:
        remove(folder(results, release))
    return gone
