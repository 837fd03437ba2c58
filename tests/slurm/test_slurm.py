"""A small demo sky through a real SLURM: every job is SLURM's, each training has a GPU of its own allocation."""

from __future__ import annotations

import csv
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


def test_the_whole_river_runs_through_slurm(run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, answer = run
    assert answer.returncode == 0, answer.stderr[-4000:]
    with (folder / "results/demo/evaluation/leaderboard.csv").open() as handle:
        assert {row["model"] for row in csv.DictReader(handle)} == set(TINY["models"])
    assert (folder / "results/demo/current/photoz/partition_info.csv").is_file()


def test_each_training_has_its_own_gpu_allocation(
    slurm: Cluster, run: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    done = [job for job in slurm.jobs() if job["JobState"] == "COMPLETED"]
    jobs = [job for job in done if job["WorkDir"] == str(run[0])]
    trainings = [job for job in jobs if "train_model" in job.get("Comment", "")]
    assert len(trainings) == len(TINY["models"])
    for job in trainings:
        assert job["Partition"] == "gpu"
        assert (job["TresPerJob"], job["JOB_GRES"]) == ("gres:gpu:1", "gpu:h200:1")
    others = [job for job in jobs if any(rule in job.get("Comment", "") for rule in NO_GPU_RULES)]
    assert others
    for job in others:
        assert job["Partition"] == "cpu"
        assert "gpu" not in job.get("TresPerJob", "")
