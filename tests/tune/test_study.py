"""The journal that trials share: no pickle, no lock that outlives its holder, no line that spoils those after it."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import Trial

from zmill.tune import study as studies
from zmill.tune.study import Lock, TuneError

HOLDS = """
import sys, time
from pathlib import Path
from zmill.tune.study import Lock
Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(600)
"""


SPACE = {"lr": FloatDistribution(0, 1), "kind": CategoricalDistribution(["a", "b"])}


def claim(study: optuna.Study, number: int) -> Trial:
    return studies.claim(study, number, SPACE, None)


def open_study(path: Path, number: int = 0) -> optuna.Study:
    return studies.open_study(path, "one", 1, number)


def test_the_journal_is_json_and_is_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "journal.jsonl"
    trial = claim(open_study(path), 3)
    assert all(isinstance(json.loads(line), dict) for line in path.read_text().splitlines())
    other = open_study(path)
    assert other.trials[0].params == trial.params
    assert studies.begun(other, 3) and not studies.begun(other, 2)


def test_a_lock_is_gone_with_its_killed_holder(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    open_study(path)
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with open(f"{path}.lock") as handle, pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.kill()
        holder.wait()
        claim(open_study(path), 0)
    assert studies.begun(open_study(path), 0)


def test_a_torn_line_is_cut_off_before_the_next_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    claim(open_study(path), 0)
    with path.open("ab") as handle:
        handle.write(b'{"op_code":4,"worker_')
    assert len(open_study(path).trials) == 1
    claim(open_study(path), 1)
    assert len(open_study(path).trials) == 2
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"

    def no_locks(handle: int, what: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(TuneError, match=r"cannot be locked \(No locks available\): put results_dir on"):
        Lock(path).acquire()


def test_what_was_proposed_stays_proposed(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = claim(open_study(path), 0)
    again = claim(open_study(path), 0)
    assert again.number == first.number
    assert again.params == first.params
    assert claim(open_study(path, 1), 1).params != first.params
    given = studies.claim(open_study(path, 2), 2, SPACE, {"lr": 0.25, "kind": "b"})
    assert given.params == {"lr": 0.25, "kind": "b"}


def test_two_concurrent_jobs_of_one_number_take_the_same_trial(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    one, other = open_study(path), open_study(path)
    begun = studies.create_trial(state=studies.TrialState.RUNNING, user_attrs={studies.NUMBER: 0})
    one.add_trial(begun)
    other.add_trial(begun)
    assert claim(one, 0).number == claim(other, 0).number
