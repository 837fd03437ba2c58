"""One trial of a search: a model is trained with proposed settings and scored like in the leaderboard."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import xxhash
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from zmill.chunks import evenly
from zmill.config import Search
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.metrics import badness
from zmill.models.base import Settings
from zmill.models.registry import model_class
from zmill.networks.network import TrainingError
from zmill.training import store
from zmill.training.evaluate import Rows, jsonable, predict_sample
from zmill.training.samples import Sample
from zmill.training.trained import TrainedModel, fit_and_calibrate
from zmill.tune import study as studies
from zmill.tune.space import NOISE, OF_SAMPLE, ROWS, changed, combination, fixed_settings, of_model, values

FORMAT = 1
"""Version of the trials; increased when earlier trials can no longer be compared with new ones."""
OUTCOME = "outcome"
COMPLETE, PRUNED, FAILED, LEFT_OUT = "complete", "pruned", "failed", "left out"
"""How a trial ended: scored; pruned; training failed; not begun, because hours or combinations were used up."""


@dataclass(frozen=True)
class Task:
    """The search that a trial belongs to. It has no test rows.

    model, type, settings : name, type and settings of the entry of `models:`.
    metric : metric of the score.
    seed : seed of the proposals.
    sample : training, validation and calibration rows, by split.
    weighted : whether models are fitted with the weights of the rows.
    log : function that logs a line.
    """

    model: str
    type: str
    settings: dict[str, Any]
    search: Search
    metric: str
    seed: int
    context: ModelContext
    sample: dict[str, Sample]
    weighted: bool
    device: torch.device
    log: Callable[[str], None]

    def rows(self, split: str) -> LabelledBatch:
        """The rows of a split."""
        return self.sample[split].training_rows(self.weighted)

    @property
    def prunes(self) -> bool:
        """Whether trials are compared while they train: those of different rows are not."""
        return self.search.prune and not OF_SAMPLE.keys() & self.search.space.keys()

    def of_sample(self, chosen: Mapping[str, Any]) -> Task:
        """The search with as many training rows, and as much noise in all rows, as a trial has; the noise is the same in all trials."""
        sample = dict(self.sample)
        if ROWS in chosen:
            sample["train"] = sample["train"].rows_of(evenly(len(sample["train"]), int(chosen[ROWS])))
        if chosen.get(NOISE):
            for number, (split, rows) in enumerate(sample.items()):
                rng = np.random.default_rng([self.context.seed, number])
                sample[split] = rows.noisier(chosen[NOISE], rng)
        return replace(self, sample=sample)

    @property
    def study(self) -> str:
        """Name of the study, the same for all comparable trials; it does not depend on the budget."""
        space = {name: dimension.model_dump(mode="json") for name, dimension in self.search.space.items()}
        about = {
            "format": FORMAT,
            "type": self.type,
            "settings": fixed_settings(self.settings, space),
            "space": space,
            "prune": self.search.prune,
            "metric": self.metric,
            "seed": self.seed,
            "context": self.context.to_json(),
            "rows": [self.rows(split).content_hash for split in ("train", "valid", "calib")],
        }
        return f"{self.model}-{xxhash.xxh3_64_hexdigest(json.dumps(about, sort_keys=True).encode())}"


class TrialCheckpoint(store.Checkpoint):
    """The checkpoint of a trial, which also prunes it if it is worse than other trials at the same epoch.

    For a training in several phases, the scores of the first are compared.
    """

    def __init__(self, path: Path, identity: str, log: Callable[[str], None], trial: Trial | None) -> None:
        super().__init__(path, identity, log)
        self.trial = trial
        self._reported = set(trial.study.trials[trial.number].intermediate_values) if trial else set()

    def validated(self, phase: str, epoch: int, score: float) -> None:
        if self.trial is None or not math.isfinite(score) or any(other != phase for other in self._phases):
            return
        if epoch not in self._reported:  # else reported by a job that was killed after its last checkpoint
            self.trial.report(score, epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"behind other trials in epoch {epoch}")


def run(task: Task, number: int, journal: Path, checkpoint: Path) -> dict[str, Any]:
    """Run a trial of the budget, resume it, or return its outcome if it has ended.

    Parameters
    ----------
    number : number of the trial in the budget, from 0.
    journal : journal of the study.
    checkpoint : path of the checkpoint of the training.

    Returns
    -------
    The outcome, JSON-ready: `study`, `number`, `state`, `values` (settings), `score` (the metric), `board` (all
    metrics), `seconds`, `why` (cause of a failure), `ended` (time). A trial that was left out has only the first three.
    """
    study = studies.open_study(journal, task.study, task.seed, number)
    about = {"study": study.study_name, "number": number}
    fixed = combination(task.search.space, task.seed, number)
    if fixed == {}:
        task.log(f"trial {number} is left out: earlier trials have every combination")
        return {**about, "state": LEFT_OUT}
    if task.search.hours is not None and not studies.begun(study, number):
        hours = sum(trial.user_attrs[OUTCOME]["seconds"] for trial in studies.ended(study)) / 3600
        if hours >= task.search.hours:
            task.log(f"trial {number} is left out: finished ones took {hours:.3g} of {task.search.hours:g} hours")
            return {**about, "state": LEFT_OUT}
    space = studies.distributions(task.search.space, model_class(task.type).Settings)
    trial = studies.claim(study, number, space, fixed)
    known = study.trials[trial.number]
    if known.state.is_finished():
        task.log(f"trial {number} was done before")
        return {**about, **known.user_attrs[OUTCOME]}
    try:
        _run_trial(task, trial, checkpoint)
    except UpdateFinishedTrialError:
        task.log(f"trial {number} was finished meanwhile by a job that an earlier run had left behind")
    return {**about, **study.trials[trial.number].user_attrs[OUTCOME]}


def _run_trial(task: Task, trial: Trial, checkpoint: Path) -> None:
    chosen = values(task.search.space, trial.params)
    duplicate = next((other for other in studies.ended(trial.study) if other.params == trial.params), None)
    if duplicate is not None:
        task.log(f"{chosen} as in trial {duplicate.user_attrs[studies.NUMBER]}: not trained again")
        outcome, value, training_checkpoint = {**duplicate.user_attrs[OUTCOME], "seconds": 0.0}, duplicate.value, None
    else:
        task.log(f"trying {chosen}")
        task = task.of_sample(chosen)
        settings = model_class(task.type).Settings.model_validate(changed(task.settings, of_model(chosen)))
        identity = store.identity(
            task.type, settings, task.context, (task.rows("train"), task.rows("valid")), task.device
        )
        training_checkpoint = TrialCheckpoint(checkpoint, identity, task.log, trial if task.prunes else None)
        started = time.monotonic()
        outcome = {"values": chosen, **_train_and_score(task, settings, training_checkpoint)}
        outcome["seconds"] = round(time.monotonic() - started + training_checkpoint.earlier_seconds, 1)
        value = badness(task.metric, outcome["score"]) if outcome["state"] == COMPLETE else None
    outcome["ended"] = datetime.now(UTC).isoformat(timespec="milliseconds")
    trial.set_user_attr(OUTCOME, jsonable(outcome))
    if outcome["state"] == COMPLETE:
        trial.study.tell(trial, value)
    else:
        trial.study.tell(trial, state=TrialState.PRUNED)
    if training_checkpoint is not None:
        training_checkpoint.remove()


def _train_and_score(task: Task, settings: Settings, training_checkpoint: TrialCheckpoint) -> dict[str, Any]:
    """Train and score: `state`, and `score` and `board`, or `why` there are none."""
    train, valid, calib = (task.rows(split) for split in ("train", "valid", "calib"))
    about = task.model, task.type, settings, task.context
    try:
        trained = fit_and_calibrate(*about, train, valid, calib, task.device, task.log, training_checkpoint)
        board = validation_board(trained, task.sample["valid"])
    except optuna.TrialPruned as error:
        return {"state": PRUNED, "why": str(error)}
    except (TrainingError, torch.OutOfMemoryError) as error:
        task.log(f"{type(error).__name__}: {error}")
        return {"state": FAILED, "why": f"{type(error).__name__}: {error}"}
    score = board[task.metric]
    task.log(f"{task.metric} {score:.6g} on the validation rows")
    if not math.isfinite(score):
        return {"state": FAILED, "why": f"{task.metric} is {score}", "board": board}
    return {"state": COMPLETE, "score": score, "board": board}


def validation_board(trained: TrainedModel, valid: Sample) -> dict[str, float]:
    """All metrics of the leaderboard on validation rows."""
    predictions, _, _ = predict_sample(trained, valid, "valid", 0)
    return Rows.of(predictions).board()
