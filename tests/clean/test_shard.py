"""A shard: every partition in parallel, resumed where it was, faults named."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client, LocalCluster

from clean.small import BANDS, survey, write_survey
from zmill.catalog import hats
from zmill.catalog.files import file_hash, read_json, write_json
from zmill.catalog.hats import CatalogError
from zmill.clean import shard as module
from zmill.clean.partition import Recipe, clean_partition
from zmill.clean.shard import clean_shard, finish_catalog, recipe
from zmill.inputs.photometry.impute import MeanColors
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.workflow.processes import processes

LEARNED = {"photometry": MeanColors(BANDS, (0.4, 0.4, 0.4), (10, 10, 10)).to_json()}
RECIPE = Recipe((PhotometryKind(BANDS, 2),), {}, LEARNED)


def hashes(catalog: Path) -> dict[str, str]:
    return {str(path.relative_to(catalog)): file_hash(path) for path in catalog.rglob("*") if path.is_file()}


def test_all_partitions_one_to_one_and_a_valid_catalogue(tmp_path: Path) -> None:
    parts = write_survey(tmp_path / "in", [500, 0, 1, 300])
    total = clean_shard(tmp_path / "in", tmp_path / "out", parts, RECIPE, tmp_path / "progress.json")
    assert total["rows"] == 801
    assert read_json(tmp_path / "progress.json")["rows"] == 801
    assert finish_catalog(tmp_path / "in", tmp_path / "out", "small_clean") == 801
    assert hats.partitions(tmp_path / "out") == hats.partitions(tmp_path / "in")
    for part in parts:
        one, other = (hats.read_columns(tmp_path / side, part, ["object_id"]) for side in ("in", "out"))
        assert one.equals(other)


def test_the_catalogue_opens_as_hats(tmp_path: Path) -> None:
    validation = pytest.importorskip("hats.io.validation")
    parts = write_survey(tmp_path / "in", [50, 60])
    clean_shard(tmp_path / "in", tmp_path / "out", parts, RECIPE, tmp_path / "progress.json")
    finish_catalog(tmp_path / "in", tmp_path / "out", "small_clean")
    assert validation.is_valid_catalog(tmp_path / "out", strict=True)


def test_processes_give_the_same_bytes_and_goes_on_past_a_damaged_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = write_survey(tmp_path / "in", [400, 300, 200])
    clean_shard(tmp_path / "in", tmp_path / "alone", parts, RECIPE, tmp_path / "alone.json")
    monkeypatch.setattr(module, "SMALL_ROWS", 0)
    file = parts[1].file(tmp_path / "in")
    content = file.read_bytes()
    file.write_bytes(content[:100])
    arguments = (tmp_path / "in", tmp_path / "out", parts, RECIPE, tmp_path / "p.json", 2)
    with pytest.raises(CatalogError, match=r"1 of 3 partitions could not be cleaned, the others are done:\n.*Npix=11"):
        clean_shard(*arguments)
    assert not (tmp_path / "p.json").exists()
    assert parts[2].file(tmp_path / "out").exists() and not parts[1].file(tmp_path / "out").exists()
    file.write_bytes(content)
    clean_shard(*arguments)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "alone")
    assert read_json(tmp_path / "p.json") == read_json(tmp_path / "alone.json")


def test_running_processes_are_used(tmp_path: Path) -> None:
    parts = write_survey(tmp_path / "in", [40, 30])
    with processes(2) as run:
        for _ in range(2):
            total = clean_shard(tmp_path / "in", tmp_path / "out", parts, RECIPE, tmp_path / "p.json", run=run)
            shutil.rmtree(tmp_path / "out")
    assert total["rows"] == 70


def test_no_process_of_a_shard_has_a_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can reach a port of a worker can give it work: every user of the machine reaches those of loopback."""
    parts = write_survey(tmp_path / "in", [40, 30, 20, 10])
    monkeypatch.setattr(module, "SMALL_ROWS", 0)
    me = psutil.Process()
    before = set(me.children(recursive=True))
    connected = {(c.laddr, c.raddr) for c in me.net_connections(kind="inet")}
    """What earlier tests in this process have left open."""
    seen: list[int] = []

    def watched(*arguments: object) -> None:
        """Called with each result, while all processes are there."""
        children = [child for child in me.children(recursive=True) if child not in before]
        seen.append(len(children))
        for process in (me, *children):
            new = {(c.laddr, c.raddr) for c in process.net_connections(kind="inet")} - connected
            assert not new, (process, new)

    monkeypatch.setattr(module.Progress, "add", watched)
    clean_shard(tmp_path / "in", tmp_path / "out", parts, RECIPE, tmp_path / "p.json", 2)
    assert len(seen) == 4 and max(seen) >= 2


def test_a_running_cluster_is_found_by_its_address_and_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = write_survey(tmp_path / "in", [40, 30])
    clean_shard(tmp_path / "in", tmp_path / "alone", parts, RECIPE, tmp_path / "alone.json")
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as running:
        monkeypatch.setattr(module, "workers", None)
        with dask.config.set({"scheduler-address": running.scheduler_address}):
            clean_shard(tmp_path / "in", tmp_path / "out", parts, RECIPE, tmp_path / "p.json", threads=2)
        assert len(running.workers) == 1
        with Client(running) as client:
            assert client.submit(sum, [1, 2]).result() == 3
    assert hashes(tmp_path / "out") == hashes(tmp_path / "alone")


def test_an_address_that_nobody_answers_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = write_survey(tmp_path / "in", [40])
    monkeypatch.setattr(module, "CONNECT", "1s")
    with (
        dask.config.set({"scheduler-address": "tcp://127.0.0.1:9"}),
        pytest.raises(CatalogError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 .*DASK_SCHEDULER_ADDRESS"),
    ):
        clean_shard(tmp_path / "in", tmp_path / "out", parts, RECIPE, tmp_path / "p.json")


def test_complete_partitions_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = write_survey(tmp_path / "in", [40, 30, 20])
    where = (tmp_path / "in", tmp_path / "out", parts, RECIPE, tmp_path / "p.json")
    first = clean_shard(*where)
    parts[1].sidecar(tmp_path / "out").unlink()
    done = []

    def counted(*args: object) -> object:
        done.append(args[2])
        return clean_partition(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "clean_partition", counted)
    assert clean_shard(*where) == first
    assert done == [parts[1]]


def test_finishing_refuses_an_old_partition_and_removes_strays(tmp_path: Path) -> None:
    parts = write_survey(tmp_path / "in", [40, 30, 20])
    where = (tmp_path / "in", tmp_path / "out", parts, RECIPE, tmp_path / "p.json")
    clean_shard(*where)
    write_survey(tmp_path / "in", [40, 35], seed=2)
    with pytest.raises(CatalogError, match="made from another input"):
        finish_catalog(tmp_path / "in", tmp_path / "out", "small")
    clean_shard(tmp_path / "in", tmp_path / "out", parts[:2], RECIPE, tmp_path / "p.json")
    assert finish_catalog(tmp_path / "in", tmp_path / "out", "small") == 75
    assert len(list((tmp_path / "out" / "dataset").rglob("*.parquet"))) == 2


def test_a_read_only_folder_is_one_clear_error(tmp_path: Path) -> None:
    parts = write_survey(tmp_path / "in", [40])
    (tmp_path / "out").write_text("a file where the catalogue should be")
    with pytest.raises(CatalogError, match=r"1 of 1 partitions could not be cleaned.*\n.*Npix=10: .*out"):
        clean_shard(tmp_path / "in", tmp_path / "out", parts, RECIPE, tmp_path / "p.json")


def test_recipe_follows_the_settings(tmp_path: Path) -> None:
    write_json(tmp_path / "imputation.json", {"learned": LEARNED, "training_rows": 3})
    assert recipe(survey(), "mean_color", tmp_path / "imputation.json") == RECIPE
    assert recipe(survey(), "none", tmp_path / "imputation.json").learned == {}


PROGRAM = """
import json, sys
from pathlib import Path
from zmill.catalog import hats
from zmill.inputs.photometry.impute import MeanColors
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.clean.partition import Recipe
from zmill.clean.shard import clean_shard
base = Path(sys.argv[1])
bands = tuple("griz")
learned = {"photometry": MeanColors(bands, (0.4, 0.4, 0.4), (10, 10, 10)).to_json()}
recipe = Recipe((PhotometryKind(bands, 2),), {}, learned)
clean_shard(base / "in", base / sys.argv[2], hats.partitions(base / "in"), recipe, base / (sys.argv[2] + ".json"))
"""


def test_killed_at_random_times_it_ends_with_the_same_bytes(tmp_path: Path, root: Path) -> None:
    write_survey(tmp_path / "in", [3000] * 30)
    place = "ünder way"

    def start(out: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(root / "workflow_scripts")}
        return subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path), out], env=environment)

    assert start("at once").wait() == 0
    killed = 0
    for after in (0.002, 0.01):
        process = start(place)
        before = len(list((tmp_path / place).rglob("*.json")))
        while process.poll() is None and len(list((tmp_path / place).rglob("*.json"))) < before + 2:
            time.sleep(0.001)
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed
    assert start(place).wait() == 0
    assert hashes(tmp_path / place) == hashes(tmp_path / "at once")
    assert json.loads((tmp_path / f"{place}.json").read_text()) == json.loads((tmp_path / "at once.json").read_text())


def test_workers_can_import_the_script_without_doing_its_work(root: Path) -> None:
    runpy.run_path(str(root / "workflow_scripts" / "clean_shard.py"), run_name="__mp_main__")
