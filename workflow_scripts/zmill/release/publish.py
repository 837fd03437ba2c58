"""Publish: build a release aside, verify it, give it its name, switch `current`, remove old ones.

Every step leaves `current` on a whole release. A run that is killed anywhere is made good by the next one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zmill.catalog.files import read_json, whole, write_json
from zmill.catalog.hats import Partition
from zmill.release import store
from zmill.release.contents import Contents, Sidecars, gather
from zmill.release.provenance import code_revision, versions
from zmill.release.store import RECORD, VERIFIED, Record, ReleaseError
from zmill.release.verify import Trusted, partition_of, stamps, verify

READ_ONLY = 0o444
NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES}
"""What a file system answers that cannot link here; the file is copied then."""


def publish(results: Path, keep: int, settings: dict[str, Any], say: Callable[[str], None], threads: int = 1) -> Record:
    """Release what stands finished below `results`.

    Parameters
    ----------
    keep : releases that stay; older ones are removed.
    settings : configuration and survey definition, recorded in `release.json`.
    threads : partitions whose hash is computed at a time.

    Returns
    -------
    The record of the release that is now current; the same is in `release.json` of the release and of `results`.

    Raises
    ------
    ReleaseError
        Where the catalogues are not whole, another release is under way, or a rollback holds publishing back. `current`
        stays as it was.
    """
    with store.lock(results):
        store.clear_unfinished(results)
        contents = gather(results)
        record = store.current(results)
        if record and record["content_hash"] == contents.content_hash:
            _verify_current(results, record, threads, _trusted(results))
            say(f"nothing changed since release {record['release']}: it stays current")
        elif held := store.held(results):
            raise ReleaseError(
                f"not published: {held['back_from']} was rolled back to {held['to']} on {held['since']}, and nothing is "
                "published since; once what was wrong is right again: snakemake resume, then run again"
            )
        else:
            record = _new_release(results, contents, record, settings, threads)
            store.switch(results, record["release"])
            say(f"current is now release {record['release']}: {summary(record)}")
        gone = store.prune(results, keep, record["release"])
        if gone:
            say(f"removed old releases: {', '.join(gone)}")
        store.copy_record(results, record["release"])
        write_json(store.releases(results) / VERIFIED, stamps(store.folder(results, record["release"]), record))
        return record


def audit(results: Path, say: Callable[[str], None], threads: int = 1) -> Record:
    """Read every byte of the current release, and hold it against its record.

    Raises
    ------
    ReleaseError
        Where there is none, or it is damaged.
    """
    record = store.current(results)
    if record is None:
        raise ReleaseError(f"{results}: nothing was released yet: there is nothing to verify")
    _verify_current(results, record, threads, {})
    say(f"release {record['release']} is whole: {record['rows']:,} rows")
    return record


def _trusted(results: Path) -> Trusted:
    """Files that were read when they were published; none where that is not known, and all are read again."""
    path = store.releases(results) / VERIFIED
    try:
        found: Trusted = read_json(path)
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found


def summary(record: Record) -> str:
    """One line on what a release holds and what is new in it."""
    changes = record["changes"]["photoz"]
    news = ", ".join(f"{len(changes[kind])} {kind}" for kind in ("added", "changed", "removed"))
    return f"{record['rows']:,} rows by {record['model']['name']}; partitions: {news}, {changes['unchanged']} unchanged"


def _verify_current(results: Path, record: Record, threads: int, trusted: Trusted) -> None:
    try:
        verify(store.folder(results, record["release"]), record, threads, trusted)
    except ReleaseError as error:
        raise ReleaseError(
            f"the current release is damaged: {error}; roll back (snakemake rollback), predict the damaged partitions "
            "again and release again"
        ) from None


def _new_release(
    results: Path, contents: Contents, previous: Record | None, settings: dict[str, Any], threads: int
) -> Record:
    """The folder of a release, built or found whole from a run that was stopped before the switch."""
    now = datetime.now(UTC)
    release = f"{now:%Y-%m-%d}-{contents.content_hash[:12]}"
    target = store.folder(results, release)
    if target.exists():
        try:
            record: Record = json.loads((target / RECORD).read_text(encoding="utf-8"))
            verify(target, record, threads)
            return record
        except (OSError, ValueError, ReleaseError):
            store.remove(target)
    record = _record(release, now, contents, previous, store.published(results), settings)
    staging = target.with_name(f".building-{release}")
    _stage(staging, results, contents, previous)
    verify(staging, record, threads, _trusted(results))
    with whole(staging / RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for path in [staging, *(path for path in staging.rglob("*") if path.is_dir())]:
        store.sync_folder(path)
    staging.rename(target)
    store.sync_folder(target.parent)
    return record


def _stage(staging: Path, results: Path, contents: Contents, previous: Record | None) -> None:
    """Fill a folder: what the previous release has already is linked from there, partitions that are new are linked
    from the working catalogue (which replaces files and never writes into one), everything else is copied."""
    old = store.folder(results, previous["release"]) if previous else None
    for name, source in contents.files.items():
        if old and previous and previous["files"].get(name) == contents.hashes[name]:
            _link(old / name, staging / name)
        else:
            _copy(source, staging / name)
    for catalog, entries in contents.catalogs.items():
        known = _known(previous, catalog)
        for partition, entry in entries.items():
            target = partition.file(staging / catalog)
            if old and known.get(partition) == entry["xxh3_128"]:
                _link(partition.file(old / catalog), target)
            else:
                _link(partition.file(results / catalog), target)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise ReleaseError(f"{source}: cannot be released ({error.strerror})") from error
        _copy(source, target)
    else:
        target.chmod(READ_ONLY)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    with open(target, "rb") as handle:
        os.fsync(handle.fileno())
    target.chmod(READ_ONLY)


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
    """What `release.json` says: the things a person asks first stand first, the long lists last."""
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
        "settings": settings,
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
    """Names of the partitions that are new, changed and gone, and how many are as they were."""
    common = [partition for partition in now if partition in before]
    changed = [partition for partition in common if now[partition]["xxh3_128"] != before[partition]]
    return {
        "added": [partition.name for partition in now if partition not in before],
        "changed": [partition.name for partition in changed],
        "removed": [partition.name for partition in before if partition not in now],
        "unchanged": len(common) - len(changed),
    }
