"""Publish: build a release in a staging folder, verify it, rename it, switch `current`, remove old releases.

`current` points at a complete release after every step. The next run completes a run that was killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from zmill.catalog.files import MEND, Damaged, file_hash, read_json, sync_folder, write_json
from zmill.catalog.hats import Partition
from zmill.release import store
from zmill.release.contents import Contents, Sidecars, gather
from zmill.release.provenance import code_revision, public, versions
from zmill.release.repair import copy, link, repair
from zmill.release.store import RECORD, VERIFIED, Record, ReleaseError
from zmill.release.verify import Trusted, faults, partition_of, stamp, verify


def publish(results: Path, keep: int, settings: dict[str, Any], log: Callable[[str], None], threads: int = 1) -> Record:
    """Publish the finished catalogues in `results` as a release.

    Parameters
    ----------
    keep : number of releases to keep; older ones are removed.
    settings : configuration and survey definition, recorded in `release.json` without secrets and paths (`public`).
    log : called with each message.
    threads : number of parallel hash computations.

    Returns
    -------
    The record of the current release, which is also in `release.json` of the release and of `results`.

    Raises
    ------
    ReleaseError
        Where the catalogues are incomplete, another release is under way, or a rollback has stopped publishing. `current`
        stays as it was.
    """
    with store.lock(results):
        store.clear_unfinished(results)
        contents = gather(results)
        if others := [*store.foreign(results), *contents.foreign]:
            log(f"not of a release, left alone: {', '.join(map(str, others))}")
        record = store.current(results)
        same = record is not None and record["content_hash"] == contents.content_hash
        if record and same and _repaired(results, record, threads, log):
            log(f"nothing changed since release {record['release']}: it stays current")
        elif held := store.held(results):
            raise ReleaseError(
                f"not published: {held['back_from']} was rolled back to {held['to']} on {held['since']}, and nothing is "
                "published since; once what was wrong is right again: snakemake resume, then run again"
            )
        else:
            record = _new_release(results, contents, record, settings, threads)
            store.switch(results, record["release"])
            log(f"current is now release {record['release']}: {summary(record)}")
        gone = store.prune(results, keep, record["release"])
        if gone:
            log(f"removed old releases: {', '.join(gone)}")
        store.copy_record(results, record["release"])
        write_json(store.releases(results) / VERIFIED, _stamps(results, record))
        return record


def audit(results: Path, log: Callable[[str], None], threads: int = 1) -> Record:
    """Read every byte of the current release, and compare it with its record.

    Raises
    ------
    ReleaseError
        Where there is none, or it is damaged.
    """
    record = store.current(results)
    if record is None:
        raise ReleaseError(f"{results}: nothing was released yet: there is nothing to verify")
    try:
        verify(store.folder(results, record["release"]), record, threads)
    except ReleaseError as error:
        raise ReleaseError(f"the current release is damaged: {error}: {MEND}") from None
    log(f"release {record['release']} is complete: {record['rows']:,} rows")
    return record


def _stamps(results: Path, record: Record) -> dict[str, dict[str, Any]]:
    """File stamps of a verified release and of the partitions it came from, so that later releases need not read them again."""
    folder = store.folder(results, record["release"])
    return {
        name: {
            key: {"released": stamp(folder / name, key, record, name), "working": _working(results / name, key)}
            for key in catalog["partitions"]
        }
        for name, catalog in record["catalogs"].items()
    }


def _working(catalog: Path, partition: str) -> list[int]:
    """Inode, size and modification time of a partition's file in the results, which change when it is written again."""
    try:
        there = partition_of(partition).file(catalog).stat()
    except FileNotFoundError:
        return []
    return [there.st_ino, there.st_size, there.st_mtime_ns]


def _trusted(results: Path) -> Trusted:
    """Stamps of the files that were verified when they were published and whose partitions were not written again since; none
    where the stamps are missing, so that all files are read again."""
    try:
        known = read_json(store.releases(results) / VERIFIED)
        return {
            name: {
                key: one["released"] for key, one in entries.items() if one["working"] == _working(results / name, key)
            }
            for name, entries in known.items()
        }
    except (FileNotFoundError, Damaged, TypeError, KeyError):  # the last two: written by an earlier version
        return {}


def summary(record: Record) -> str:
    """One line with the rows of a release and its changes."""
    changes = record["changes"]["photoz"]
    news = ", ".join(f"{len(changes[kind])} {kind}" for kind in ("added", "changed", "removed"))
    return f"{record['rows']:,} rows by {record['model']['name']}; partitions: {news}, {changes['unchanged']} unchanged"


def _repaired(results: Path, record: Record, threads: int, log: Callable[[str], None]) -> bool:
    """Whether the current release agrees with its record, after repairs from the results folder."""
    folder = store.folder(results, record["release"])
    left = repair(results, folder.name, faults(folder, record, threads, _trusted(results)), log)
    if left:
        log(f"the current release is damaged, a new one replaces it: {'; '.join(fault.what for fault in left[:10])}")
    return not left


def _new_release(
    results: Path, contents: Contents, previous: Record | None, settings: dict[str, Any], threads: int
) -> Record:
    """Build the folder of a release, or use the complete folder of a run that was stopped before the switch."""
    now = datetime.now(UTC)
    first = f"{now:%Y-%m-%d}-{contents.content_hash[:12]}"
    for number in count(1):
        release = first if number == 1 else f"{first}-{number}"
        target = store.folder(results, release)
        if not target.exists():
            break
        try:
            record = store.read(target)
            verify(target, record, threads)
            return record
        except ReleaseError:
            if release != (previous or {}).get("release"):  # readers may use undamaged files of the current one
                store.remove(target)
                break
    record = _record(release, now, contents, previous, store.published(results), settings)
    staging = target.with_name(f".building-{release}")
    _stage(staging, results, contents, previous)
    try:
        verify(staging, record, threads, _trusted(results))
    except ReleaseError as error:
        raise ReleaseError(f"not published: {error}: {MEND}") from None
    write_json(staging / RECORD, record, sort_keys=False)
    for path in [staging, *(path for path in staging.rglob("*") if path.is_dir())]:
        sync_folder(path)
    staging.rename(target)
    sync_folder(target.parent)
    return record


def _stage(staging: Path, results: Path, contents: Contents, previous: Record | None) -> None:
    """Fill the staging folder: undamaged files of equal content are linked from the previous release, other partitions are linked
    from the results (whose files are replaced, never modified), and all other files are copied."""
    old = store.folder(results, previous["release"]) if previous else None
    for name, source in contents.files.items():
        if old and previous and previous["files"].get(name) == contents.hashes[name] == _hash(old / name):
            link(old / name, staging / name)
        else:
            copy(source, staging / name)
    for catalog, entries in contents.catalogs.items():
        known = _known(previous, catalog)
        for partition, entry in entries.items():
            source, recorded_hash = partition.file(results / catalog), entry["xxh3_128"]
            if old and known.get(partition) == recorded_hash:
                before = partition.file(old / catalog)
                if before.is_file() and not before.samefile(source) and file_hash(before) == recorded_hash:
                    source = before  # predicted again, with the same result
            link(source, partition.file(staging / catalog))


def _hash(path: Path) -> str | None:
    return file_hash(path) if path.is_file() else None


def _known(record: Record | None, catalog: str) -> dict[Partition, str]:
    entries = record["catalogs"].get(catalog, {}).get("partitions", {}) if record else {}
    return {partition_of(name): entry["xxh3_128"] for name, entry in entries.items()}


def _record(
    release: str,
    now: datetime,
    contents: Contents,
    previous: Record | None,
    others: list[Record],
    settings: dict[str, Any],
) -> Record:
    """The content of `release.json`: the most important entries first, the long lists last."""
    learned = {name: value for name, value in contents.hashes.items() if name.startswith("model/")}
    made = Counter(entry["model"] for entry in contents.catalogs["photoz"].values() if "model" in entry)
    model = {"name": contents.model, "files": learned, "partitions_by_hash": dict(made)}
    return {
        "release": release,
        "created": now.isoformat(timespec="seconds"),
        "sequence": 1 + max((other["sequence"] for other in others), default=0),
        "previous": previous["release"] if previous else None,
        "content_hash": contents.content_hash,
        "rows": contents.rows,
        "model": model,
        "changes": {
            "since": previous["release"] if previous else None,
            "model": previous is None or previous["model"]["files"] != learned,
            **{name: _changes(entries, _known(previous, name)) for name, entries in contents.catalogs.items()},
        },
        "gates": contents.gates,
        "code": code_revision(),
        "versions": versions(),
        "settings": public(settings),
        "files": contents.hashes,
        "catalogs": {
            name: {
                "rows": sum(entry["rows"] for entry in entries.values()),
                "bytes": sum(entry["bytes"] for entry in entries.values()),
                "partitions": {partition.name: entry for partition, entry in entries.items()},
            }
            for name, entries in contents.catalogs.items()
        },
    }


def _changes(now: Sidecars, before: dict[Partition, str]) -> dict[str, Any]:
    """Names of the added, changed and removed partitions, and the number of unchanged ones."""
    common = [partition for partition in now if partition in before]
    changed = [partition for partition in common if now[partition]["xxh3_128"] != before[partition]]
    return {
        "added": [partition.name for partition in now if partition not in before],
        "changed": [partition.name for partition in changed],
        "removed": [partition.name for partition in before if partition not in now],
        "unchanged": len(common) - len(changed),
    }
