"""A small demo sky through a real SLURM: every job is SLURM's, each training has a GPU of its own allocation."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from slurm.cluster import Cluster
from tiny import ROOT, TINY, prepare, snakemake

pytestmark = pytest.mark.slurm

FAST = [
    "--slurm-init-seconds-before-status-checks",
    "15",
    "--seconds-between-status-checks",
    "2",
    "--latency-wait",
    "5",
]
GPU_RULES = {"train_model", "evaluate_model", "champion", "predict_shard"}
NO_GPU_RULES = {"import_survey", "labels", "crossmatch", "split", "colors", "clean_shard", "sample"}


@pytest.fixture(scope="module")
def run(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of a run through SLURM, and what Snakemake said."""
    folder = tmp_path_factory.mktemp("run")
    prepare(folder, **TINY)
    profile = folder / "profile"
    shutil.copytree(ROOT / "profiles" / "slurm", profile)
    answer = snakemake(folder, "--workflow-profile", str(profile), "--jobs", "4", "--max-threads", "2", *FAST, "all")
    return folder, answer


def test_all_stages_run_through_slurm(run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, answer = run
    assert answer.returncode == 0, answer.stderr[-4000:]
    with (folder / "results/demo/evaluation/leaderboard.csv").open() as handle:
        assert {row["model"] for row in csv.DictReader(handle)} == set(TINY["models"])
    assert (folder / "results/demo/current/photoz/partition_info.csv").is_file()


def of_rules(jobs: list[dict[str, str]], rules: set[str]) -> dict[str, list[dict[str, str]]]:
    """Jobs by the rule that they are of."""
    found: dict[str, list[dict[str, str]]] = {rule: [] for rule in rules}
    for job in jobs:
        for rule in rules:
            if rule in job.get("Comment", ""):
                found[rule].append(job)
    return found


def test_jobs_that_can_use_a_gpu_have_one_each_and_the_others_have_none(
    slurm: Cluster, run: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    done = [job for job in slurm.jobs() if job["JobState"] == "COMPLETED"]
    jobs = [job for job in done if job["WorkDir"] == str(run[0])]
    accelerated = of_rules(jobs, GPU_RULES)
    assert all(accelerated.values()) and len(accelerated["train_model"]) == len(TINY["models"])
    for job in [job for found in accelerated.values() for job in found]:
        assert job["Partition"] == "gpu"
        assert (job["TresPerJob"], job["JOB_GRES"]) == ("gres:gpu:1", "gpu:h200:1")
    others = of_rules(jobs, NO_GPU_RULES)
    assert all(others.values())
    for job in [job for found in others.values() for job in found]:
        assert job["Partition"] == "cpu"
        assert "gpu" not in job.get("TresPerJob", "")


def test_trainings_side_by_side_have_different_gpus(
    slurm: Cluster, run: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    """By what the jobs themselves saw."""
    jobs = of_rules([job for job in slurm.jobs() if job["WorkDir"] == str(run[0])], {"train_model"})["train_model"]
    assert max(job["StartTime"] for job in jobs) < min(job["EndTime"] for job in jobs), "they ran side by side"
    logs = [(run[0] / f"results/demo/logs/train_model/{model}.log").read_text() for model in TINY["models"]]
    assert sorted(re.findall(r"INFO on \S+, GPU (\d)", "".join(logs))) == ["0", "1"]
