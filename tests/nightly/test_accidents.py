"""Nights on which something around the workflow fails: a label service, the disk. No row and no label is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import night_sky
import numpy as np
import pytest
import yaml
from astropy.table import Table
from night_sky import CATALOGS, Sky, fresh, hashes, later_labels, record
from servers.tap import Tap

from disks import small_disk
from zmill.release import store

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

TABLE = "NEDTAP.objdir"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 64 MB."""
    with small_disk(tmp_path / "a small disk", "64m") as folder:
        yield folder


def directory(sky: Sky) -> Table:
    """The spectra that the survey's own file does not have, as NED would have them."""
    late = later_labels(sky)
    n = late.num_rows
    columns = {name: late[name].to_numpy() for name in ("ra", "dec", "z")}
    columns |= {"prefname": np.array([f"ZMN {number}" for number in range(n)]), "zunc": np.full(n, 1e-4)}
    return Table(columns | {"zflag": np.full(n, "SLS "), "prefphytype": np.full(n, "G")})


def ask_ned(sky: Sky, url: str, max_age_days: float = 1e-9) -> None:
    """NED is the further source of labels."""
    path = sky.folder / "surveys" / "night.yaml"
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    quick = {"retries": 1, "backoff_s": 0.01, "interval_s": 0, "timeout_s": 5, "max_age_days": max_age_days}
    definition["labels"][1:] = [{"name": "ned", "source": "ned", "url": url, **quick}]
    path.write_text(yaml.safe_dump(definition, sort_keys=False), encoding="utf-8")


def test_a_dead_service_and_a_full_disk_cost_a_night_and_nothing_else(tmp_path: Path, disk: Path) -> None:
    sky = night_sky.make(tmp_path / "sky")
    (sky.folder / "results").symlink_to(disk)
    corner = sky.tiles[0]
    held = corner.read_bytes()
    corner.unlink()
    with Tap({TABLE: directory(sky)}) as ned:
        ask_ned(sky, f"{ned.url}/tap")
        ned.fault_of = lambda request: "503"
        night = sky.refresh()
        assert night.code == 1 and "labels: ned" in night.text and "503" in night.text
        assert store.current(sky.results) is None

        ned.fault_of = lambda request: ""
        night = sky.refresh()
        assert night.code == 0, night.text[-4000:]
        first = record(sky)

        # The footprint grows, NED is queried again and does not answer: its earlier answers are used. The disk fills up.
        corner.write_bytes(held)
        ned.fault_of = lambda request: "503"
        filler = disk / "someone else's"
        free = os.statvfs(disk)
        filler.write_bytes(bytes(free.f_bavail * free.f_frsize - 150_000))
        night = sky.refresh()
        assert night.code == 1 and ("No space left" in night.text or "disk is full" in night.text)
        assert record(sky) == first, "the old release stays"

        filler.unlink()
        night = sky.refresh()
        assert night.code == 0, night.text[-4000:]
        assert "503" in (sky.results / "logs" / "labels.log").read_text()
        ned.fault_of = lambda request: ""
        assert fresh(sky) == {name: hashes(sky, name) for name in CATALOGS}
        assert record(sky)["rows"] > first["rows"]

        # Answers that are too old are requested again on any night, and the others are not.
        number = len(ned.requests)
        night = sky.refresh()
        assert night.code == 0 and night.jobs["labels"] == 1 and "train_model" not in night.jobs
        assert len(ned.requests) > number
        ask_ned(sky, f"{ned.url}/tap", max_age_days=30)
        assert sky.refresh().jobs["labels"] == 1
        night = sky.refresh()
        assert (night.code, night.jobs) == (0, {})
