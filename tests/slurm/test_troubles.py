"""What happens to jobs on a cluster, in a real SLURM with the profile as it is, but for less memory and time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slurm.cluster import Cluster
from slurm.test_slurm import FAST
from tiny import ROOT

pytestmark = pytest.mark.slurm

TROUBLES = Path(__file__).with_name("troubles") / "Snakefile"
LESS = {"attempt * 4000": "attempt * 1200"}


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Snakemake at work on some of the troubles."""
    profile = (ROOT / "profiles" / "slurm" / "config.yaml").read_text(encoding="utf-8")
    for given, less in LESS.items():
        assert given in profile
        profile = profile.replace(given, less)
    (folder / "profile").mkdir()
    (folder / "profile" / "config.yaml").write_text(profile, encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(TROUBLES), "--directory", str(folder)]
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [*command, "--workflow-profile", str(folder / "profile"), *FAST, *arguments],
            stdout=said,
            stderr=said,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def until(true: Callable[[], bool], what: str, seconds: float = 300) -> None:
    """Wait for something that SLURM does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.5)


def attempts(folder: Path, rule: str) -> list[int]:
    """The attempts at which a job was begun."""
    file = folder / f"{rule}.begun"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def jobs(slurm: Cluster, folder: Path, rule: str) -> list[dict[str, str]]:
    """SLURM's own account of the jobs of a rule, first to last."""
    found = [job for job in slurm.jobs() if job["WorkDir"] == str(folder) and job["Comment"] == f"rule_{rule}"]
    return sorted(found, key=lambda job: int(job["JobId"]))


@pytest.fixture(scope="module")
def folder(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where a job was cancelled, one lacked memory, one lacked time, one has wrong data and one had a GPU."""
    folder = tmp_path_factory.mktemp("troubles")
    resources = ("time:runtime=attempt", "accelerated:gpu=0", "accelerated:gres=gpu:h200:1")
    with running(
        folder, "--set-resources", *resources, "--", "memory", "time", "wrong", "cancelled", "accelerated"
    ) as process:
        until(lambda: attempts(folder, "cancelled") == [1], "the job begins")
        subprocess.run(["scancel", jobs(slurm, folder, "cancelled")[0]["JobId"]], check=True, timeout=30)
        process.wait(timeout=600)
    assert process.returncode == 1, "the one with wrong data failed"
    return folder


def test_a_job_out_of_memory_is_given_more(slurm: Cluster, folder: Path) -> None:
    assert (folder / "memory.done").exists()
    assert attempts(folder, "memory") == [1, 2]
    assert [job["MinMemoryNode"] for job in jobs(slurm, folder, "memory")] == ["1200M", "2400M"]


def test_a_job_out_of_time_is_given_more(slurm: Cluster, folder: Path) -> None:
    assert (folder / "time.done").exists()
    found = jobs(slurm, folder, "time")
    assert [job["JobState"] for job in found] == ["TIMEOUT"] * (len(found) - 1) + ["COMPLETED"]
    assert [job["TimeLimit"] for job in found[:2]] == ["00:01:00", "00:02:00"]


def test_a_cancelled_job_is_run_again(slurm: Cluster, folder: Path) -> None:
    assert (folder / "cancelled.done").exists()
    assert attempts(folder, "cancelled") == [1, 2]
    assert [job["JobState"] for job in jobs(slurm, folder, "cancelled")] == ["CANCELLED", "COMPLETED"]


def test_gpus_can_be_requested_as_gres(slurm: Cluster, folder: Path) -> None:
    (job,) = jobs(slurm, folder, "accelerated")
    assert job["TresPerNode"] == "gres:gpu:h200:1"
    assert "TresPerJob" not in job
    assert (folder / "accelerated.done").read_text() in {"0", "1"}
    assert (folder / "cancelled.done").read_text() == ""


def test_a_job_with_wrong_data_is_not_retried_and_the_message_names_its_log(folder: Path) -> None:
    assert attempts(folder, "wrong") == [1]
    said = (folder / "said.txt").read_text()
    message = said[said.rindex("Error in rule wrong") :]
    log = folder / "logs/wrong.log"
    assert str(log.relative_to(folder)) in message
    assert log.read_text().splitlines()[-1].endswith("ValueError: row 7 has no object_id")


def test_the_message_about_a_killed_job_has_the_state_and_the_log_of_slurm(folder: Path) -> None:
    said = (folder / "said.txt").read_text()
    message = said[said.index("Error in rule time") :]
    assert "SLURM status is: 'TIMEOUT'" in message
    log = next(part.strip(" ,.()") for part in message.split() if ".snakemake/slurm_logs/rule_time/" in part)
    assert "DUE TO TIME LIMIT" in (folder / log).read_text()
    assert "ended by signal 15" in (folder / log).read_text()


def test_pre_emption_a_lost_node_and_a_killed_node_daemon_are_survived(slurm: Cluster, tmp_path: Path) -> None:
    with running(tmp_path, "unlucky") as process:
        until(lambda: attempts(tmp_path, "unlucky") == [1], "the job begins")
        subprocess.run(
            ["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"],
            check=True,
            timeout=30,
        )
        begun_again(slurm, tmp_path, restarts=1)
        slurm.crash()
        slurm.lost()
        slurm.start_daemon("slurmd")
        begun_again(slurm, tmp_path, restarts=2)
        slurm.crash()
        slurm.start_daemon("slurmd")
        process.wait(timeout=300)
    assert process.returncode == 0, (tmp_path / "said.txt").read_text()
    assert attempts(tmp_path, "unlucky") == [1, 1, 1, 2], (
        "queued again by SLURM, and at last submitted again by Snakemake"
    )


def begun_again(slurm: Cluster, folder: Path, restarts: int) -> None:
    """Wait until SLURM has queued the job again and it has begun; the two minutes that SLURM pauses are cut short."""

    def queued() -> bool:
        (job,) = jobs(slurm, folder, "unlucky")
        return (job["Restarts"], job["JobState"], job["Reason"]) == (str(restarts), "PENDING", "BeginTime")

    until(queued, "queued again")
    (job,) = jobs(slurm, folder, "unlucky")
    subprocess.run(["scontrol", "update", f"JobId={job['JobId']}", "StartTime=now"], check=True, timeout=30)
    until(lambda: len(attempts(folder, "unlucky")) == 1 + restarts, "begun again")
