"""A survey in a thousand files of which one changes: the night after is as short as the change."""

from __future__ import annotations

import os
from pathlib import Path

import night_sky
import pytest
from night_sky import hashes, record

pytestmark = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.long]


def test_one_changed_file_of_a_thousand_is_one_partition_of_work(tmp_path: Path) -> None:
    sky = night_sky.make(tmp_path / "sky", order=12, partitions={"max_rows": 1, "max_order": 12, "shard_rows": 8000})
    assert len(sky.files) > 1000
    night = sky.refresh()
    assert night.code == 0, night.text[-4000:]
    before = {name: hashes(sky, name) for name in ("survey", "clean", "photoz")}
    assert 1000 < len(before["photoz"]) == len(before["survey"]) <= len(sky.files)

    for tile in sky.files:
        os.utime(tile)
    night = sky.refresh()
    assert (night.code, night.jobs) == (0, {})

    tile = sky.tiles[len(sky.tiles) // 2]
    sky.change(tile)
    night = sky.refresh()
    assert night.code == 0, night.text[-4000:]
    assert set(night.jobs.values()) == {1} and "train_model" not in night.jobs
    for name, earlier in before.items():
        now = hashes(sky, name)
        assert {f"tile-{one}" for one in now if now[one] != earlier[one]} == {tile.stem}, name
    assert len(record(sky)["changes"]["photoz"]["changed"]) == 1
