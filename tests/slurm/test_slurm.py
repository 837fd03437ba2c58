"""A small demo sky through a real SLURM: every job is SLURM's, each training has a GPU of its own allocation."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from slurm.cluster import Cluster

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).resolve().parents[2]
FAST = ["--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2", "--latency-wait", "5"]
NO_GPU_RULES = {"import_survey", "labels", "crossmatch", "split", "colors", "clean_shard", "sample"}


@pytest.fixture(scope="module")
def run(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of a run through SLURM, and what Snakemake said."""
    folder = tmp_path_factory.mktemp("run")
    settings = yaml.safe_load((ROOT / "config.yaml").read_text())
    settings["demo"]["area"] = 0.5
    settings["models"] = {"trainz": {}, "knn": {"k": [11]}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    profile = folder / "profile"
    shutil.copytree(ROOT / "profiles" / "slurm", profile)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    answer = subprocess.run(
        [*command, "--workflow-profile", str(profile), "--jobs", "4", *FAST, "all"],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=1500,
    )
    return folder, answer


def test_the_whole_river_runs_through_slurm(run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, answer = run
    assert answer.returncode == 0, answer.stderr[-4000:]
    with (folder / "results/demo/evaluation/leaderboard.csv").open() as handle:
        assert {row["model"] for row in csv.DictReader(handle)} == {"trainz", "knn"}
    assert (folder / "results/demo/current/photoz/partition_info.csv").is_file()


def test_each_training_has_its_own_gpu_allocation(
    slurm: Cluster, run: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    jobs = [job for job in slurm.jobs() if job["JobState"] == "COMPLETED"]
    trainings = [job for job in jobs if "train_model" in job.get("Comment", "")]
    assert len(trainings) == 2
    for job in trainings:
        assert job["Partition"] == "gpu"
        assert "gpu" in job.get("TresPerJob", "") + job.get("GRES", "") + job.get("JOB_GRES", "")
    others = [job for job in jobs if any(rule in job.get("Comment", "") for rule in NO_GPU_RULES)]
    assert others
    for job in others:
        assert job["Partition"] == "cpu"
        assert "gpu" not in job.get("TresPerJob", "")
