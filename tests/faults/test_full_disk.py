"""Disks that are full or read-only at every kind of write: an error that says so, nothing half-written, and it goes on afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "release"))
from release_sky import PHOTOZ, SKY, fill, write

from disks import small_disk
from zmill.catalog import hats, shards, sources
from zmill.catalog.files import atomic_write, file_hash, problem, write_json
from zmill.release import store
from zmill.release.publish import publish
from zmill.release.rollback import rollback
from zmill.release.verify import verify

if TYPE_CHECKING:
    from conftest import Tally  # several folders of tests have a conftest

KB = 1 << 10


def everything(folder: Path) -> dict[str, str]:
    """Content of every file, by name."""
    return {str(p.relative_to(folder)): file_hash(p) for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


def big_json(results: Path) -> None:
    write_json(results / "progress" / "import" / "state.json", {"pieces": {str(n): "x" * 60 for n in range(4000)}})


def table(results: Path) -> None:
    with atomic_write(results / "matches.parquet") as temporary:
        temporary.write_bytes(os.urandom(300 * KB))


def partition(results: Path) -> None:
    low, high = SKY[1].interval()
    n = 20_000
    columns = {
        "_healpix_29": np.sort(np.random.default_rng(1).integers(low, high, n)),
        **{name: np.random.default_rng(2).random(n) for name in ("ra", "dec")},
        **{name: np.random.default_rng(3).random(n).astype(np.float32) for name in ("z_mode", "z_median")},
        "object_id": np.arange(n),
        "flags": np.zeros(n, np.int32),
    }
    with hats.write_partition(results / "photoz", SKY[1], PHOTOZ) as out:
        out.write(pa.table({name: columns[name] for name in PHOTOZ.names}, schema=PHOTOZ))


def catalogue(results: Path) -> None:
    write(results, "photoz", SKY[1], 5.0)
    hats.finish(results / "photoz", "x" * 200_000, SKY)


def plan(results: Path) -> None:
    shards.write(results / "survey", dict.fromkeys(range(60), SKY), dict.fromkeys(SKY, "0" * 4000))


def manifest(results: Path) -> None:
    source = results / "report.html"
    sources.keep(
        {str(source): {"token": "t" * 200_000, "stamp": sources._stamp(source), "content": "c"}}, results / "m.json"
    )


def release(results: Path) -> None:
    publish(results, 5, {"padding": "x" * 300_000}, lambda line: None)


def new_release(results: Path) -> None:
    (results / "report.html").write_bytes(b"x" * 1000)
    fill(results, 2.0)
    release(results)


def back(results: Path) -> None:
    rollback(results, lambda line: None)


FULL: dict[str, tuple[Callable[[Path], None], int]] = {
    "a state file": (big_json, 40),
    "a table": (table, 80),
    "a partition": (partition, 40),
    "a catalogue's files": (catalogue, 60),
    "a plan of shards": (plan, 20),
    "a manifest": (manifest, 40),
    "a release": (new_release, 250),
    "a release's record": (release, 60),
}
"""What is written -> how, and KiB that are left for it."""


@pytest.mark.parametrize("what", FULL)
def test_a_full_disk(tmp_path: Path, what: str, tally: Tally) -> None:
    action, left = FULL[what]
    with small_disk(tmp_path / "disk", "8m") as disk:
        results = fill(disk / "results")
        if what != "a release's record":
            release(results)
        before = everything(results)
        filler = disk / "filler"
        free = os.statvfs(disk)
        filler.write_bytes(bytes(free.f_bavail * free.f_frsize - left * KB))
        with tally("full disks"):
            with pytest.raises(Exception, match=r"No space left|cannot be released|Errno 28"):
                action(results)
            now = everything(results)
            assert not [name for name in now if name.endswith(".tmp") and not name.startswith("releases/.building")]
            lost = [name for name, was in before.items() if now.get(name) != was and problem(results / name)]
            assert lost == [], "every file is the old one, the new one, or gone"
            if what != "a release's record":
                record = store.current(results)
                assert record is not None
                verify(store.folder(results, record["release"]), record)
            filler.unlink()
            action(results)


@pytest.mark.parametrize("what", ["a release", "a rollback"])
def test_a_read_only_disk(tmp_path: Path, what: str, tally: Tally) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk:
        results = fill(disk / "results")
        release(results)
        fill(results, 2.0)
        release(results)
        fill(results, 3.0)
        before = everything(results)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        try:
            with tally("read-only disks"):
                with pytest.raises(Exception, match="Read-only file system"):
                    {"a release": release, "a rollback": back}[what](results)
                assert everything(results) == before
        finally:
            with suppress(subprocess.CalledProcessError):
                subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        release(results)
