"""Repair of damaged releases when a run starts, and replacement of those that cannot be repaired."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from zmill.catalog.files import Damaged, atomic_write, read_json
from zmill.release import store
from zmill.release.repair import repair
from zmill.release.store import RECORD, VERIFIED, ReleaseError
from zmill.release.verify import faults, lost

RELEASED = Path("progress", "release.json")
"""Output of the rule `release`, relative to the results folder: without it, the rule runs again."""


def mend(results: Path, every_byte: bool = False) -> list[str]:
    """Restore damaged files of releases from files of equal content. Where there is none, the next run replaces the current
    release, and an older release is reported.

    Parameters
    ----------
    every_byte : whether all releases are read; otherwise only names and sizes of the files of the current one are checked.

    Returns
    -------
    One sentence per fault.
    """
    if not store.ids(results):
        return []
    found: list[str] = []
    with store.lock(results):
        store.clear_unfinished(results)
        found += _records(results)
        try:
            now = store.resolve(results)
        except ReleaseError as error:
            return [*found, str(error)]
        if now is None:
            now = _link(results, found)
        for release in store.ids(results):
            folder = store.folder(results, release)
            if (folder / RECORD).is_file() and (every_byte or folder == now):
                found += _release(results, folder, every_byte, folder == now)
        if now and _differs(results / RECORD, now / RECORD):
            store.copy_record(results, now.name)
            found.append(f"{results / RECORD}: put back from {now / RECORD}")
    return found


def _release(results: Path, folder: Path, every_byte: bool, current: bool) -> list[str]:
    lines: list[str] = []
    record = store.read(folder)
    broken = faults(folder, record, os.cpu_count() or 1) if every_byte else lost(folder, record)
    left = repair(results, folder.name, broken, lines.append)
    for fault in left:
        what = f"{folder / fault.name}: damaged ({fault.what}), and no other file has this content"
        lines.append(f"{what}: {'the next run replaces the release' if current else 'the release stays as it is'}")
    if left and current:
        _release_again(results)
    return lines


def _release_again(results: Path) -> None:
    """Make the next run publish a release, after it has read all files of the current one."""
    (results / RELEASED).unlink(missing_ok=True)
    (store.releases(results) / VERIFIED).unlink(missing_ok=True)


def _records(results: Path) -> list[str]:
    """Restore a damaged record from the copy of the current record; otherwise rename it, so that its folder is no release."""
    lines = []
    for release in store.ids(results):
        folder = store.folder(results, release)
        path = folder / RECORD
        try:
            store.read(folder)
            continue
        except ReleaseError as error:
            why = str(error) if path.is_file() else f"{path}: missing"
        if _names(results / RECORD, release):
            with atomic_write(path, check=False) as temporary:
                shutil.copyfile(results / RECORD, temporary)
            lines.append(f"{why}; put back from {results / RECORD}")
        elif path.is_file():
            path.replace(path.with_name(f"{RECORD}.damaged"))
            _release_again(results)
            lines.append(f"{why}; the folder counts as no release any more: remove it once you need nothing of it")
    return lines


def _link(results: Path, found: list[str]) -> Path | None:
    """Restore the link `current` where it is missing or has no target."""
    for release in store.ids(results):
        if _names(results / RECORD, release) and (store.folder(results, release) / RECORD).is_file():
            store.switch(results, release)
            found.append(f"{results / 'current'}: was missing, points at {release} again")
            return store.folder(results, release)
    if (results / RELEASED).is_file():
        found.append(f"{results / 'current'}: points at no release: the next run makes one")
        _release_again(results)
    return None


def _names(copy: Path, release: str) -> bool:
    """Whether the copy of a record is undamaged and of this release."""
    try:
        return bool(read_json(copy)["release"] == release)
    except (OSError, Damaged, KeyError, TypeError):
        return False


def _differs(one: Path, other: Path) -> bool:
    return not one.is_file() or one.read_bytes() != other.read_bytes()
