"""Clocks that disagree: a job whose inputs come from the future is done once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from zmill.catalog.files import write_json
from zmill.dates import back_to_now, period, settle, term

RULES = """\
from pathlib import Path
from snakemake.dag import DAG
from zmill.dates import follow_inputs
follow_inputs(DAG, Path("scripts"))

rule last:
    input: "middle"
    output: "last"
    shell: "cp {input} {output}"

rule middle:
    input: "first", ancient("linked")
    output: "middle"
    script: "scripts/middle.py"
"""
DAY = 86_400


def date(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() + seconds,) * 2)


def run(folder: Path) -> str:
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "last"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("ahead", ["first", "linked", "scripts/middle.py"])
def test_what_is_dated_tomorrow_is_no_error_and_is_done_once(tmp_path: Path, ahead: str) -> None:
    (tmp_path / "Snakefile").write_text(RULES)
    script = tmp_path / "scripts" / "middle.py"
    script.parent.mkdir()
    script.write_text("open(snakemake.output[0], 'w').write(open(snakemake.input[0]).read())\n")
    for name in ("first", "elsewhere"):
        (tmp_path / name).write_text(name)
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere")
    date(tmp_path / ahead, DAY)
    run(tmp_path)
    assert "Nothing to be done" in run(tmp_path)

    (tmp_path / "first").write_text("another")
    date(tmp_path / "first", 2 * DAY)
    run(tmp_path)
    assert (tmp_path / "last").read_text() == "another"
    assert "Nothing to be done" in run(tmp_path)


def test_a_period_ends_once_and_is_not_put_off_by_a_wrong_clock(tmp_path: Path) -> None:
    state, now = tmp_path / "state.json", datetime.now(UTC)
    assert period(state) == 0
    for when, days, ended in [
        (now, 30.0, 0),
        (now - timedelta(days=29), 30.0, 0),
        (now - timedelta(days=31), 30.0, 1),
        (now - timedelta(days=31), None, 0),
        (now + timedelta(hours=1), 30.0, 0),
        (now + timedelta(days=400), 30.0, 1),
        (None, 30.0, 0),
    ]:
        write_json(state, {"period": 7, **term(when, days)})
        assert period(state) == 7 + ended, (when, days)


def test_outputs_that_are_younger_keep_their_date(tmp_path: Path) -> None:
    for name, age in {"in": 30, "out": 10, "old": 50}.items():
        (tmp_path / name).touch()
        date(tmp_path / name, -age)
    before = (tmp_path / "out").stat().st_mtime_ns
    settle(
        [str(tmp_path / "in"), str(tmp_path / "gone")],
        tmp_path / "none.py",
        map(str, [tmp_path / "out", tmp_path / "old"]),
    )
    assert (tmp_path / "out").stat().st_mtime_ns == before
    assert (tmp_path / "old").stat().st_mtime_ns == (tmp_path / "in").stat().st_mtime_ns


def test_what_is_ahead_comes_back_and_stays_in_order(tmp_path: Path) -> None:
    ages = {
        "a/older": 2 * DAY,
        "a/younger": 3 * DAY,
        "b/past": -DAY,
        "releases/1/kept": DAY,
        "photoz/dataset/kept": DAY,
    }
    for name, age in ages.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        date(tmp_path / name, age)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in ages}
    assert back_to_now(tmp_path / "a", [tmp_path / "b" / "past", tmp_path / "gone"]) == 2
    assert back_to_now(tmp_path) == 0
    now = {name: (tmp_path / name).stat().st_mtime_ns for name in ages}
    assert now["b/past"] < now["a/older"] == now["a/younger"] <= time.time_ns()
    assert {name for name in ages if now[name] == before[name]} == {"b/past", "releases/1/kept", "photoz/dataset/kept"}
