"""Logs of jobs, and which errors are tried again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import torch

from zmill.labels.http import Transient
from zmill.workflow.job import CAUSE, failed, forget, is_permanent, job, log


def snakemake_job(folder: Path, attempt: int | None = None) -> SimpleNamespace:
    """What a script is given: its log, and the attempt where a profile says it."""
    return SimpleNamespace(
        log=[str(folder / "logs" / "rule" / "7.log")],
        output=[],
        resources={} if attempt is None else {"attempt": attempt},
    )


def run(folder: Path, attempt: int | None, error: BaseException | None) -> bool:
    """A job that raises `error`; whether its work was begun."""
    begun = False
    try:
        with job(snakemake_job(folder, attempt)):
            begun = True
            if error is not None:
                raise error
    except SystemExit as end:
        assert end.code == 1
    return begun


def text(folder: Path) -> str:
    return Path(snakemake_job(folder).log[0]).read_text(encoding="utf-8")


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def test_the_log_ends_with_the_time_or_with_the_cause(tmp_path: Path) -> None:
    with job(snakemake_job(tmp_path)) as logger:
        assert logger is log
        log.info("at work")
    assert "INFO at work" in text(tmp_path)
    assert "finished in" in text(tmp_path).splitlines()[-1]
    run(tmp_path, None, ValueError("row 7 has no id"))
    assert "Traceback" in text(tmp_path)
    assert text(tmp_path).splitlines()[-1].endswith("ERROR ValueError: row 7 has no id")
    assert not log.handlers


@pytest.mark.parametrize(("given", "suffix"), [("3", ", GPU 3"), ("", ""), (None, "")])
def test_the_log_says_where_a_job_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, suffix: str
) -> None:
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    run(tmp_path, None, None)
    assert text(tmp_path).splitlines()[0].endswith(f"INFO on {socket.gethostname()}{suffix}")


def test_an_error_of_the_data_is_not_retried_in_the_same_run(tmp_path: Path) -> None:
    assert run(tmp_path, 1, ValueError("row 7 has no id"))
    first = text(tmp_path)
    Path(snakemake_job(tmp_path).log[0]).unlink()  # as Snakemake does before it submits a job again
    assert not run(tmp_path, 2, None)
    assert "attempt 2 is not made" in text(tmp_path)
    assert first.splitlines()[-1].partition("ERROR")[2] == text(tmp_path).splitlines()[-1].partition("ERROR")[2]
    assert "Traceback" in text(tmp_path)
    assert not run(tmp_path, 3, None)


def test_what_failed_is_listed_with_its_message_until_a_new_run_begins(tmp_path: Path) -> None:
    run(tmp_path, 1, ValueError("row 7 has no id"))
    assert failed(tmp_path / "logs") == {Path(snakemake_job(tmp_path).log[0]): "ValueError: row 7 has no id"}
    forget(tmp_path / "logs")
    assert failed(tmp_path / "logs") == {}
    assert run(tmp_path, 2, None), "attempt 1 of a new run was killed before it began"
    forget(tmp_path / "there is no such folder")


def test_a_first_attempt_is_always_made(tmp_path: Path) -> None:
    run(tmp_path, None, ValueError("row 7 has no id"))
    assert run(tmp_path, None, None)
    assert failed(tmp_path / "logs") == {}


def test_a_job_that_ran_out_of_memory_is_retried(tmp_path: Path) -> None:
    assert run(tmp_path, 1, MemoryError("too small"))
    assert run(tmp_path, 2, None)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a wrong value"),
        KeyError("mag_i"),
        FileNotFoundError(2, "No such file or directory"),
        OSError("the file is truncated"),
        chained(ValueError("no table"), KeyError("mag_i")),
    ],
)
def test_permanent_errors(error: Exception) -> None:
    assert is_permanent(error)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        TimeoutError("no answer"),
        ConnectionResetError("by the peer"),
        OSError(28, "No space left on device"),
        OSError(5, "Input/output error"),
        OSError(116, "Stale file handle"),
        BrokenProcessPool("a child was killed"),
        torch.OutOfMemoryError("the GPU is full"),
        requests.ConnectionError("the connection broke"),
        Transient("a page of HTML"),
        chained(ValueError("labels: no answer"), Transient("no answer")),
    ],
)
def test_errors_that_may_pass(error: Exception) -> None:
    assert not is_permanent(error)


PROGRAM = """
import sys, time
from types import SimpleNamespace
from zmill.workflow.job import job
with job(SimpleNamespace(log=[sys.argv[1]], output=[], resources={'attempt': 1})):
    print('begun', flush=True)
    time.sleep(float(sys.argv[2]))
"""


def begin(folder: Path, seconds: float) -> subprocess.Popen[str]:
    """A job in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, snakemake_job(folder).log[0], str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_sigterm_is_logged(tmp_path: Path) -> None:
    process = begin(tmp_path, 60)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert "ended by signal 15" in text(tmp_path).splitlines()[-1]
    assert not list(tmp_path.rglob(f"*{CAUSE}")), "it is tried again"


def test_a_job_that_goes_on_after_its_run_was_killed_is_waited_for(tmp_path: Path) -> None:
    """As a job of SLURM's does whose Snakemake is gone, when another run submits the same job."""
    orphan = begin(tmp_path, 60)
    assert orphan.stdout is not None and orphan.stdout.readline() == "begun\n"
    log_of_it = text(tmp_path)
    same = begin(tmp_path, 0)
    assert same.stdout is not None and same.stderr is not None
    assert f"goes on (process {orphan.pid} on {socket.gethostname()})" in same.stderr.readline()
    assert same.poll() is None and text(tmp_path) == log_of_it, "the log is still the other's"
    orphan.kill()
    orphan.communicate()
    assert same.stdout.readline() == "begun\n"
    same.communicate(timeout=30)
    assert same.returncode == 0 and "finished in" in text(tmp_path)


def test_every_script_is_a_job(root: Path) -> None:
    scripts = sorted((root / "workflow_scripts").glob("*.py"))
    assert len(scripts) > 15
    for script in scripts:
        assert "with job(snakemake)" in script.read_text(encoding="utf-8"), (
            f"{script.name}: with job(snakemake) as log:"
        )
