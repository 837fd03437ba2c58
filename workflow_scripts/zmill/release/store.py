"""Where releases are: `releases/<id>/`, the link `current`, the lock that lets one process at a time change them.

Nothing else in `releases/` is read, followed or removed: only folders that have the name of a release, and no links.
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
"""In every release: what it holds, with the hash of every file."""
VERIFIED = "verified.json"
"""In the folder of releases: the files of the one that was published last, as they were when they had been read."""
HOLD = "hold.json"
"""In the folder of releases after a rollback: nothing is published."""
ID = re.compile(r"\d{4}-\d\d-\d\d-[0-9a-f]{12}(-\d+)?")
"""Name of a release: date, first digits of the content hash, and a number where there is another one of that name."""
UNFINISHED = re.compile(rf"\.(building|removed)-{ID.pattern}")

Record = dict[str, Any]


class ReleaseError(Exception):
    """What would be released, or was, is not what it should be; the release that is current stays."""


def releases(results: Path) -> Path:
    """The folder of all releases."""
    return results / "releases"


def folder(results: Path, release: str) -> Path:
    """The folder of one release."""
    if not ID.fullmatch(release):
        raise ReleaseError(f"{release!r} is not the name of a release in {releases(results)}")
    return releases(results) / release


def ids(results: Path) -> list[str]:
    """Names of the releases that there are, whole or not."""
    return sorted(path.name for path in _inside(results) if ID.fullmatch(path.name) and _is_folder(path))


def foreign(results: Path) -> list[Path]:
    """What somebody else put among the releases; it is left alone."""
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

    A reader calls this once and reads everything below the answer: `current` may be switched while it reads.

    Raises
    ------
    ReleaseError
        Where `current` is something else than a link to a release.
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
    with atomic_write(results / RECORD, check=False) as temporary:
        shutil.copyfile(folder(results, release) / RECORD, temporary)


def held(results: Path) -> dict[str, str] | None:
    """What a rollback left, where publishing was not resumed since: `since`, and the releases that it went `back_from` and `to`."""
    path = releases(results) / HOLD
    if not path.is_file():
        return None
    try:
        found: dict[str, str] = read_json(path)
    except Damaged:  # that there was a rollback is what counts
        found = dict.fromkeys(("since", "back_from", "to"), f"unknown ({path} is damaged)")
    return found


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
    for path in _inside(results):
        if UNFINISHED.fullmatch(path.name) and _is_folder(path):
            remove(path)
        elif re.fullmatch(rf"\.({VERIFIED}|{HOLD})\..*\.tmp", path.name):
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
