"""Patches of Snakemake: applied once, skipped or refused if Snakemake has changed, and still needed."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.cli import main  # noqa: F401  Snakemake's modules import one another: this one has to be the first
from snakemake.dag import DAG
from snakemake.exceptions import WorkflowError
from snakemake.jobs import Reason
from snakemake.logging import logger

from tiny import ROOT, prepare
from zmill.workflow import patches, planning

FUNCTIONS = ("init", "update_needrun", "check_output_mtime")
OURS = SimpleNamespace(output=["a"], log=["b"], rule=SimpleNamespace(script="../workflow_scripts/labels.py"))
THEIRS = SimpleNamespace(output=["a"], log=["b"], rule=SimpleNamespace(script="scripts/labels.py"))


@pytest.fixture(autouse=True)
def original(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Snakemake as it is without zmill, before and after each test."""
    for name in FUNCTIONS:
        function = getattr(DAG, name)
        monkeypatch.setattr(DAG, name, getattr(function, "__wrapped__", function))
    monkeypatch.setattr(patches, "_warned", set())
    monkeypatch.setattr(planning, "folders", {})
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)


def make_all() -> None:
    patches.collect_garbage_less_often()
    patches.allow_outputs_older_than_inputs()
    patches.plan_by_records("results/demo", lambda folder: [])


def test_every_patch_is_applied_once() -> None:
    make_all()
    made = [getattr(DAG, name) for name in FUNCTIONS]
    make_all()
    assert [getattr(DAG, name) for name in FUNCTIONS] == made
    assert all(function.__wrapped__.__module__ == "snakemake.dag" for function in made)
    assert gc.get_threshold()[0] == patches.OBJECTS


def test_the_installed_version_is_the_tested_one() -> None:
    constraints = (ROOT / "envs" / "constraints.txt").read_text(encoding="utf-8")
    assert f"snakemake=={patches.TESTED}" in constraints.split()
    assert version("snakemake") == patches.TESTED, "test every patch with this version, then change TESTED"


def test_times_are_compared_only_for_foreign_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    async def check_output_mtime(self: object, job: object, outputs: list[str]) -> None:
        compared.append((job, outputs))

    monkeypatch.setattr(DAG, "check_output_mtime", check_output_mtime)
    patches.allow_outputs_older_than_inputs()
    for job in (OURS, THEIRS):
        asyncio.run(DAG.check_output_mtime(None, job, ["a"]))
    assert compared == [(THEIRS, ["a"])]


def test_an_optional_patch_is_skipped_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(DAG, "check_output_mtime")
    monkeypatch.setattr(logger, "propagate", True)
    with caplog.at_level(logging.WARNING):
        patches.allow_outputs_older_than_inputs(warn=False)
        assert not caplog.messages
        for _ in range(2):
            patches.allow_outputs_older_than_inputs()
    assert len(caplog.messages) == 1
    assert "has no snakemake.dag.DAG.check_output_mtime" in caplog.text and "jobs may fail if an input" in caplog.text
    assert not hasattr(DAG, "check_output_mtime")


@pytest.mark.parametrize(("owner", "name"), [(DAG, "update_needrun"), (Reason, "clear"), (Reason, "forced")])
def test_without_records_no_run_begins(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    monkeypatch.delattr(owner, name)
    before = DAG.init
    with pytest.raises(WorkflowError, match=rf"{owner.__name__}\.{name}.*Install Snakemake {patches.TESTED}"):
        patches.plan_by_records("results/demo", lambda folder: [])
    assert DAG.init is before and not planning.folders


def test_a_plan_in_other_attributes_is_refused() -> None:
    patches.plan_by_records("results/demo", lambda folder: [])
    dag = SimpleNamespace(**dict.fromkeys(patches.STATE[1:]))
    with pytest.raises(WorkflowError, match=rf"lacks DAG.{patches.STATE[0]}: .*outdated results"):
        asyncio.run(DAG.init(dag))


def snakemake(folder: Path, before: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run zmill in a folder, in a process that first runs some Python."""
    program = f"from snakemake.cli import main\nfrom snakemake.dag import DAG\n{before}\nmain()"
    command = [sys.executable, "-c", program, "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--cores", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=600, check=False)


@pytest.mark.workflow
def test_a_run_is_refused_with_a_message_and_the_patch_of_times_is_needed(tmp_path: Path) -> None:
    prepare(tmp_path, demo={"area": 0.05}, models={"trainz": {}})
    refused = snakemake(tmp_path, "del DAG.update_needrun", "demo_data")
    assert refused.returncode == 1 and not (tmp_path / "data").exists()
    assert "which lacks snakemake.dag.DAG.update_needrun" in refused.stderr and "Traceback" not in refused.stderr
    assert snakemake(tmp_path, "", "demo_data").returncode == 0
    for path in (tmp_path / "data").rglob("*"):
        os.utime(path, (4e9, 4e9))
    assert "older modification time" not in (done := snakemake(tmp_path, "", "import_survey")).stderr
    assert done.returncode == 0, done.stderr[-4000:]
    without = "from zmill.workflow import patches; patches.allow_outputs_older_than_inputs = lambda warn: None"
    failed = snakemake(tmp_path, without, "import_survey", "--forcerun", "import_survey")
    assert failed.returncode == 1 and "older modification time" in failed.stderr, (
        "Snakemake no longer fails here: remove the patch"
    )
