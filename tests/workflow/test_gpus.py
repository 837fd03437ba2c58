"""How many GPUs there are, and what jobs ask for then. No GPU is needed: the driver's library is one that was made here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiny import ROOT, TINY, prepare, snakemake_here
from zmill.workflow import gpus

LIBRARY = """
int nvmlInit_v2(void) { return %(init)d; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = %(count)d; return 0; }
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this a machine with so many GPUs."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")

    def become(count: int, init: int = 0) -> None:
        source = tmp_path / "nvml.c"
        source.write_text(LIBRARY % {"count": count, "init": init})
        folder = tmp_path / f"driver-{count}-{init}"
        folder.mkdir()
        subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / gpus.LIBRARY, source], check=True)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
        monkeypatch.delenv(gpus.VISIBLE, raising=False)

    return become


def count() -> int:
    """In a process of its own: where libraries are looked for is read once."""
    program = f"import sys; sys.path[:0] = {[str(ROOT / 'workflow_scripts')]!r}\nfrom zmill.workflow import gpus; print(gpus.count(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    number, torch = done.stdout.split()
    assert torch == "False"
    return int(number)


def test_gpus_are_those_that_the_driver_has_and_jobs_may_see(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(4)
    assert count() == 4
    for given, visible in {"": 0, "-1": 0, "2": 1, "GPU-a, GPU-b": 2}.items():
        monkeypatch.setenv(gpus.VISIBLE, given)
        assert count() == visible, given
    machine(3, init=9)  # a driver that does not work
    assert count() == 0


def test_without_a_driver_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "LIBRARY", "libno-such-driver.so.1")
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    assert gpus.count() == 0


@pytest.fixture
def reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, tuple[int, int]]]:
    """Threads and GPUs that jobs of each rule ask for on a machine with so many GPUs."""
    prepare(tmp_path, **TINY | {"models": {"trainz": {}}})  # one training: jobs of a rule come in any order
    shards = tmp_path / "results" / "demo" / "survey" / "shards"
    shards.mkdir(parents=True)
    (shards / "0.csv").touch()
    found: dict[str, tuple[int, int]] = {}

    def log_info(job: Any, *_: object, **__: object) -> None:
        found[job.rule.name] = job.threads, job.resources.get("gpu", 0)

    def run(there: int, *arguments: str) -> dict[str, tuple[int, int]]:
        monkeypatch.setattr(gpus, "count", lambda: there)
        monkeypatch.setattr("snakemake.jobs.Job.log_info", log_info)
        code, text = snakemake_here(
            tmp_path, capfd, "train", "results/demo/progress/predict/0.json", "--dry-run", *arguments
        )
        assert code == 0, text
        return found

    return run


@pytest.mark.parametrize(
    ("there", "cores", "training", "prediction"),
    [
        (0, 128, (1, 0), (16, 0)),
        (1, 8, (1, 1), (8, 1)),
        (4, 16, (1, 1), (4, 1)),
        (4, 2, (1, 1), (1, 1)),
    ],
)
def test_jobs_ask_for_a_gpu_where_there_is_one_and_share_the_cores(
    reserved: Callable[..., dict[str, tuple[int, int]]],
    there: int,
    cores: int,
    training: tuple[int, int],
    prediction: tuple[int, int],
) -> None:
    found = reserved(there, "--cores", str(cores))
    assert (found["train_model"], found["predict_shard"]) == (training, prediction)
    assert found["evaluate_model"][1] == found["champion"][1] == training[1]
    assert found["import_survey"][1] == found["clean_shard"][1] == 0


def test_on_a_cluster_jobs_ask_for_a_gpu_whatever_this_machine_has(
    reserved: Callable[..., dict[str, tuple[int, int]]],
) -> None:
    found = reserved(0, "--workflow-profile", str(ROOT / "profiles" / "slurm"))
    assert {rule for rule, (_, gpu) in found.items() if gpu} == {
        "train_model",
        "evaluate_model",
        "champion",
        "predict_shard",
    }


def test_at_a_site_without_gpus_no_job_asks_for_one(
    reserved: Callable[..., dict[str, tuple[int, int]]], tmp_path: Path
) -> None:
    """With what the page says."""
    page = (ROOT / "docs" / "slurm.md").read_text(encoding="utf-8")
    block = yaml.safe_load(re.findall(r"```yaml\n(set-resources:.*?)```", page, re.DOTALL)[0])
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text(encoding="utf-8"))
    assert set(block["set-resources"]) == set(profile["set-resources"])
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text(yaml.safe_dump(profile | block), encoding="utf-8")
    found = reserved(0, "--workflow-profile", str(tmp_path / "profile"))
    assert {gpu for _, gpu in found.values()} == {0}
