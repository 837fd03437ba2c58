"""Trials: the best settings are found, a kill loses and adds none, bad ones are given up, more of them are only added."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import small_search
from small_search import SEARCH, SETTINGS, done, task

from models import toy_spectra
from zmill.catalog.files import read_json
from zmill.chunks import evenly
from zmill.models.registry import model_class
from zmill.training.samples import Sample
from zmill.training.trained import fit_and_calibrate
from zmill.tune import study as studies
from zmill.tune.result import describe
from zmill.tune.trial import OUTCOME, Task, validation_board

BAD = {"space": {"lr": {"low": 1e-8, "high": 2e-8}}}


def scored(given: Task, settings: dict[str, Any]) -> float:
    """The score of settings, without any search."""
    own = model_class(given.type).Settings.model_validate({**given.settings, **settings})
    rows = (given.rows(split) for split in ("train", "valid", "calib"))
    trained = fit_and_calibrate("alone", given.type, own, given.context, *rows, given.device, given.log)
    return validation_board(trained, given.sample["valid"])[given.metric]


def without_time(outcomes: list[dict]) -> list[dict]:
    return [{key: value for key, value in outcome.items() if key not in ("seconds", "ended")} for outcome in outcomes]


def test_the_best_of_few_choices_is_found_exactly(tmp_path: Path) -> None:
    space = {"k": [3, [11], [71, 101]], "weights": ["uniform", "distance"]}
    given = task({"space": space}, type="knn", settings={}, metric="crps")
    outcomes = done(given, tmp_path, range(8))
    assert [outcome["state"] for outcome in outcomes] == ["complete"] * 6 + ["left out"] * 2
    every = {
        (str(k), weights): scored(given, {"k": k, "weights": weights})
        for k, weights in itertools.product(*space.values())
    }
    assert {(str(o["values"]["k"]), o["values"]["weights"]): o["score"] for o in outcomes[:6]} == every


def test_the_best_of_a_range_is_found(tmp_path: Path) -> None:
    """Nearly as good as the best of a grid, which takes as many trainings."""
    given = task()
    grid = min(
        scored(given, {"lr": 10 ** -(0.5 * step), "hidden": hidden})
        for step in range(2, 11)
        for hidden in ([8], [16, 16])
    )
    outcomes = done(given, tmp_path, range(20))
    scores = [outcome["score"] for outcome in outcomes if outcome["state"] == "complete"]
    assert min(scores) < 2 * grid
    assert max(scores) > 10 * grid


def test_rows_and_noise_of_the_sample_are_varied(tmp_path: Path) -> None:
    sample = {
        split: Sample.of(
            toy_spectra.sample_table(n, seed).append_column("object_id", pa.array(range(n))), toy_spectra.CONTEXT
        )
        for seed, (split, n) in enumerate({"train": 400, "valid": 100, "calib": 100}.items())
    }
    given = task(
        {"space": {"sample.rows": [250, 400], "sample.noise": [0.0, 5.0]}}, type="spectrum_cnn", sample=sample,
        context=toy_spectra.CONTEXT, settings={**model_class("spectrum_cnn").quick, "epochs": 3},
    )  # fmt: skip
    varied = given.of_sample({"sample.rows": 250, "sample.noise": 5.0})
    assert [len(varied.sample[split]) for split in sample] == [250, 100, 100]
    for split, rows in sample.items():
        before, after = rows.rows.batch, varied.sample[split].rows.batch
        assert np.nanmedian(before.sn) > 4.5 * np.nanmedian(after.sn)
        assert np.array_equal(after.ivar == 0, before[evenly(len(before), len(after))].ivar == 0)
    assert np.array_equal(varied.sample["valid"].rows.batch.flux, given.of_sample({"sample.noise": 5.0}).sample["valid"].rows.batch.flux)  # fmt: skip
    assert given.of_sample({"sample.rows": 10_000}).rows("train").content_hash == given.rows("train").content_hash
    assert not given.prunes
    outcomes = done(given, tmp_path, range(4))
    assert {(o["values"]["sample.rows"], o["values"]["sample.noise"]) for o in outcomes} == set(itertools.product((250, 400), (0.0, 5.0)))  # fmt: skip
    assert len({o["score"] for o in outcomes}) == 4
    found = describe(given.model, given.type, given.settings, given.search, given.metric, 1, outcomes)
    assert not any(name.startswith("sample") for name in found["entry"])


def test_a_higher_r2_is_better(tmp_path: Path) -> None:
    given = task(metric="r2")
    outcomes = [outcome for outcome in done(given, tmp_path, range(5)) if outcome["state"] == "complete"]
    best = studies.open_study(tmp_path / "journal.jsonl", given.study, 1, 0).best_trial
    assert best.user_attrs[OUTCOME]["score"] == max(outcome["score"] for outcome in outcomes)


def test_a_larger_budget_only_adds_trials(tmp_path: Path) -> None:
    said: list[str] = []
    first = done(task(), tmp_path, range(3))
    again = done(task({**SEARCH, "trials": 5, "hours": 8}, said.append), tmp_path, range(5))
    assert again[:3] == first
    assert sum("was done before" in line for line in said) == 3
    assert len(studies.open_study(tmp_path / "journal.jsonl", task().study, 1, 0).trials) == 5
    assert not list(tmp_path.glob("*.safetensors"))


def test_another_search_shares_no_trial() -> None:
    wider = {"space": {**SEARCH["space"], "lr": {"low": 1e-6, "high": 1e-1, "log": True}}}
    fewer = task().sample | {"calib": task().sample["calib"].first(149)}
    names = {
        given.study
        for given in (
            task(),
            task(wider),
            task(metric="crps"),
            task(seed=2),
            task(settings={"epochs": 9}),
            task(sample=fewer),
        )
    }
    assert len(names) == 6
    assert task({**SEARCH, "trials": 99}).study == task(settings={**SETTINGS, "lr": 1e-3}).study == task().study


def test_a_trial_that_falls_behind_is_given_up(tmp_path: Path) -> None:
    given = task(BAD)
    study = studies.open_study(tmp_path / "journal.jsonl", given.study, 1, 0)
    space = studies.distributions(given.search.space, model_class("fcnn").Settings)
    for number in range(5):
        study.add_trial(
            studies.create_trial(
                value=0.01,
                params={"lr": 1.5e-8},
                distributions=space,
                intermediate_values=dict.fromkeys(range(1, 9), 0.01),
                user_attrs={studies.NUMBER: number, OUTCOME: {"seconds": 1.0}},
            )
        )
    (outcome,) = done(given, tmp_path, [5])
    assert outcome["state"] == "pruned"
    assert outcome["why"] == "behind other trials in epoch 4"
    assert "score" not in outcome
    assert not list(tmp_path.glob("*.safetensors"))
    (spared,) = done(task({**BAD, "prune": False}), tmp_path, [5])
    assert spared["state"] == "complete" and spared["score"] > 0.05


def test_a_training_that_fails_is_a_trial_that_failed(tmp_path: Path) -> None:
    outcomes = done(
        task({"space": {"lr": {"low": 9.0, "high": 10.0}}}, type="cnn", settings={"epochs": 3, "optimizer": "sgd"}),
        tmp_path,
        range(2),
    )
    assert [outcome["state"] for outcome in outcomes] == ["failed", "failed"]
    assert "TrainingError: the loss became" in outcomes[0]["why"]


def test_no_trial_starts_once_the_time_is_up(tmp_path: Path) -> None:
    given = task({**SEARCH, "hours": 1e-9})
    outcomes = done(given, tmp_path, range(3))
    assert [outcome["state"] for outcome in outcomes] == ["complete", "left out", "left out"]
    assert done(task({**SEARCH, "hours": 1.0}), tmp_path, range(3))[0] == outcomes[0]


def test_a_completed_trial_is_not_repeated(tmp_path: Path) -> None:
    said: list[str] = []
    given = task({"space": {"batch": {"low": 64, "high": 65}}}, said.append)
    outcomes = done(given, tmp_path, range(6))
    assert {outcome["values"]["batch"] for outcome in outcomes} == {64, 65}
    assert sum("fitting" in line for line in said) == 2
    assert len({outcome["score"] for outcome in outcomes}) == 2


def start(folder: Path, *numbers: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    program = [sys.executable, small_search.__file__, str(folder), *map(str, numbers)]
    return subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_same_end(tmp_path: Path) -> None:
    """Killed at any time, started again: the budget is met to the trial, with the same proposals and the same scores."""
    numbers, luck, killed, resumed = range(3), random.Random(3), 0, 0
    while True:
        job = start(tmp_path, *numbers)
        for line in job.stdout:
            resumed += "resuming after epoch" in line
            if "epoch" in line and killed < 2 and luck.random() < 0.5:
                os.kill(job.pid, signal.SIGKILL)
                break
        job.stdout.close()
        if job.wait() == 0:
            break
        killed += 1
    assert killed == 2
    assert resumed >= 1
    trials = studies.open_study(tmp_path / "journal.jsonl", task().study, 1, 0).trials
    assert [trial.user_attrs[studies.NUMBER] for trial in trials] == list(numbers)
    assert all(trial.state.is_finished() for trial in trials)
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    with start(undisturbed, *numbers) as job:
        assert job.stdout.read()
    found, expected = (
        [read_json(folder / f"{number}.json") for number in numbers] for folder in (tmp_path, undisturbed)
    )
    assert without_time(found) == without_time(expected)


@pytest.mark.slow
def test_two_jobs_at_a_time_share_one_study(tmp_path: Path) -> None:
    jobs = [start(tmp_path, *range(first, 6, 2)) for first in range(2)]
    assert all(job.stdout.read() for job in jobs)
    assert [job.wait() for job in jobs] == [0, 0]
    for job in jobs:
        job.stdout.close()
    trials = studies.open_study(tmp_path / "journal.jsonl", task().study, 1, 0).trials
    assert sorted(trial.user_attrs[studies.NUMBER] for trial in trials) == list(range(6))
    assert all(trial.state.is_finished() for trial in trials)
    assert len({trial.params["lr"] for trial in trials}) == 6
