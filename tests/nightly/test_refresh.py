"""`snakemake refresh`, night after night: exactly what changed is done again, and a bad night leaves the old release."""

from __future__ import annotations

import os
import re
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from night_sky import Sky, hashes, later_labels, record

from zmill.catalog.files import read_json
from zmill.catalog.lock import hold

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

FOLLOWS = {"clean_catalog", "photoz_catalog", "gates", "report", "release", "refresh"}
"""What a night does once, wherever rows changed."""
SURVEY = {"import_survey", "crossmatch", "split", "retrain_check"}
TRAINING = {"sample", "train_model", "evaluate_model", "select_model", "champion"}


def nothing_to_do(sky: Sky) -> None:
    night = sky.refresh()
    assert (night.code, night.jobs) == (0, {})
    assert "Nothing to be done" in night.text


def test_one_changed_file_is_one_partition_of_work_whatever_the_times_of_files(sky: Sky) -> None:
    for path in [*sky.files, sky.spectra]:
        os.utime(path)
    nothing_to_do(sky)
    tomorrow = (time.time() + 86_400,) * 2  # the clock went back
    for path in [*sky.results.rglob("*"), *sky.tiles]:
        os.utime(path, tomorrow, follow_symlinks=False)
    nothing_to_do(sky)
    tile, before = sky.tiles[5], {name: hashes(sky, name) for name in ("survey", "clean", "photoz")}
    inodes = {path: path.stat().st_ino for path in (sky.results / "photoz" / "dataset").rglob("*.parquet")}
    sky.change(tile)
    night = sky.refresh()
    assert night.code == 0, night.text[-3000:]
    assert night.jobs == dict.fromkeys(SURVEY | FOLLOWS | {"clean_shard", "predict_shard"}, 1)
    pixel = int(tile.stem.removeprefix("tile-"))
    for name, earlier in before.items():
        now = hashes(sky, name)
        assert {one for one in now if now[one] != earlier[one]} == {pixel}, name
    assert {path.stem for path, inode in inodes.items() if path.stat().st_ino != inode} == {f"Npix={pixel}"}
    changes = record(sky)["changes"]
    assert len(changes["photoz"]["changed"]) == 1 and not changes["model"]
    nothing_to_do(sky)


def test_files_that_come_and_go(sky: Sky) -> None:
    tile = sky.tiles[7]
    before = record(sky)
    held, lost = tile.read_bytes(), pq.read_metadata(tile).num_rows
    tile.unlink()
    night = sky.refresh()
    assert night.code == 1 and "not published: rows_lost" in night.text
    assert record(sky) == before, "the old release stays"
    assert "beyond its limit" in (sky.results / "report.html").read_text()
    night = sky.refresh(gates={"rows_lost": 1, "magnitudes": 1, "n_of_z": 1, "n_of_z_new_model": 1, "measured": 1})
    assert night.code == 0, night.text[-3000:]
    assert before["rows"] - lost <= record(sky)["rows"] < before["rows"]
    tile.write_bytes(held)
    night = sky.refresh()
    assert night.code == 0 and night.jobs["clean_shard"] == night.jobs["predict_shard"] == 1
    assert record(sky)["rows"] == before["rows"]


def test_models_are_retrained_once_labels_changed_enough_and_replace_the_old_only_if_better(sky: Sky) -> None:
    late, first = later_labels(sky), read_json(sky.results / "champion.json")
    colors = (sky.results / "imputation.json").read_bytes()
    test_rows = set(pq.read_table(sky.results / "sample" / "test.parquet")["object_id"].to_pylist())
    sky.write_labels(pa.concat_tables([sky.labels(), late.slice(0, 8)]))
    night = sky.refresh()
    assert night.code == 0 and not TRAINING & set(night.jobs) and "predict_shard" not in night.jobs
    sky.write_labels(pa.concat_tables([sky.labels(), late.slice(8)]))
    night = sky.refresh(refresh={"margin": 0.9})
    assert night.code == 0, night.text[-3000:]
    assert set(night.jobs) >= TRAINING and not {"predict_shard", "clean_shard"} & set(night.jobs)
    now = read_json(sky.results / "champion.json")
    assert now["hash"] == first["hash"] and not now["history"][0]["won"]
    assert record(sky)["model"]["partitions_by_hash"] == {first["hash"]: len(hashes(sky, "photoz"))}
    night = sky.refresh(refresh={"margin": 0})
    assert night.code == 0, night.text[-3000:]
    now = read_json(sky.results / "champion.json")
    decided = now["history"][0]
    assert decided["won"] == (decided["value"] < decided["champion"]) == (now["hash"] != first["hash"])
    assert ("predict_shard" in night.jobs) == decided["won"]
    assert record(sky)["model"]["partitions_by_hash"] == {now["hash"]: len(hashes(sky, "photoz"))}
    assert (sky.results / "imputation.json").read_bytes() == colors
    assert test_rows <= set(pq.read_table(sky.results / "sample" / "test.parquet")["object_id"].to_pylist())


def test_a_failed_job_is_retried_until_it_succeeds(sky: Sky) -> None:
    tile, before = sky.tiles[5], record(sky)
    sky.change(tile)
    good = tile.read_bytes()
    tile.write_bytes(good[:40] + bytes(600) + good[640:])  # its footer says nothing of it
    for _ in range(2):
        night = sky.refresh()
        assert night.code == 1 and f"{tile.name}: cannot be read" in night.text and not night.jobs
        assert record(sky) == before
    tile.write_bytes(good)
    night = sky.refresh()
    assert night.code == 0 and night.jobs["clean_shard"] == night.jobs["predict_shard"] == 1
    assert len(record(sky)["changes"]["photoz"]["changed"]) == 1

    for made in (
        "specz/labels.json",
        "matches.parquet",
        "sample/sample.json",
        "models/knn/model.json",
        "champion.json",
    ):
        (sky.results / made).unlink()
    planned = set(re.findall(r"^(\w+) +\d+$", sky.refresh("--dry-run").text, re.MULTILINE))
    assert planned >= {"labels", "crossmatch", "sample", "train_model", "champion"}


def test_a_rollback_while_a_night_runs_holds_publishing_back_until_it_is_resumed(sky: Sky) -> None:
    first = record(sky)
    sky.change(sky.tiles[5])
    assert sky.refresh().code == 0
    second = record(sky)
    with hold(sky.results / ".lock"):
        assert sky.refresh(target="rollback").code == 0
    assert record(sky) == first == read_json(sky.results / "release.json")
    nothing_to_do(sky)
    sky.change(sky.tiles[3])
    night = sky.refresh()
    assert night.code == 1 and f"not published: {second['release']} was rolled back" in night.text
    assert record(sky) == first == read_json(sky.results / "release.json")
    assert sky.refresh(target="resume").code == 0
    night = sky.refresh()
    assert (night.code, night.jobs) == (0, {"release": 1, "refresh": 1})
    partitions = record(sky)["catalogs"]["photoz"]["partitions"]
    assert sorted(one["xxh3_128"] for one in partitions.values()) == sorted(hashes(sky, "photoz").values())
