"""One trial of a search: a model trained with proposed settings and scored as the leaderboard would score it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import torch
import xxhash
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from zmill.config import Search
from zmill.inputs.base import Context, Labelled
from zmill.metrics import badness
from zmill.models.base import Settings
from zmill.models.registry import model_class
from zmill.networks.network import TrainingError
from zmill.training import store
from zmill.training.evaluate import Rows, jsonable, predict_sample
from zmill.training.trained import TrainedModel, fit_and_calibrate
from zmill.tune import study as studies
from zmill.tune.space import beside, changed, combination, values

FORMAT = 1
"""Raised when trials done before can no longer be compared with new ones."""
OUTCOME = "outcome"
COMPLETE, PRUNED, FAILED, LEFT_OUT = "complete", "pruned", "failed", "left out"
"""How a trial ended: scored; given up by comparison with others; not trainable; not begun, as time or choices were used up."""


@dataclass(frozen=True)
class Task:
    """A search as each of its jobs is told of it. No test row is among what it is told.

    model, type, settings : of the entry of `models:`. metric : that decides. seed : of what is tried.
    sample : the tables of the training, validation and calibration rows, by split.
    weighted : whether models are fitted with the rows' weights.
    """

    model: str
    type: str
    settings: dict[str, Any]
    search: Search
    metric: str
    seed: int
    context: Context
    sample: dict[str, pa.Table]
    weighted: bool
    device: torch.device
    say: Callable[[str], None]

    def rows(self, split: str) -> Labelled:
        """The rows of a split."""
        context = self.context
        return Labelled.from_arrow(self.sample[split], context.bands, context.extra_names, self.weighted)

    @property
    def study(self) -> str:
        """Name of the study: the same for all trials that may be compared, whatever the budget."""
        space = {name: dimension.model_dump(mode="json") for name, dimension in self.search.space.items()}
        about = {
            "format": FORMAT,
            "type": self.type,
            "settings": beside(self.settings, space),
            "space": space,
            "prune": self.search.prune,
            "metric": self.metric,
            "seed": self.seed,
            "context": asdict(self.context),
            "rows": [self.rows(split).content_hash for split in ("train", "valid", "calib")],
        }
        return f"{self.model}-{xxhash.xxh3_64_hexdigest(json.dumps(about, sort_keys=True).encode())}"


class Watched(store.Checkpoint):
    """A trial's training: kept like any other, and given up where it falls behind other trials at the same epoch.

    Of a training in several phases the first decides.
    """

    def __init__(self, path: Path, identity: str, say: Callable[[str], None], trial: Trial | None) -> None:
        super().__init__(path, identity, say)
        self.trial = trial
        self._told = set(trial.study.trials[trial.number].intermediate_values) if trial else set()

    def look(self, phase: str, epoch: int, score: float) -> None:
        if self.trial is None or not math.isfinite(score) or any(other != phase for other in self._phases):
            return
        if epoch not in self._told:  # by a job that was killed after its last checkpoint
            self.trial.report(score, epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"behind other trials in epoch {epoch}")


def run(task: Task, place: int, journal: Path, checkpoint: Path) -> dict[str, Any]:
    """Do the trial of a place of the budget, go on with it, or find that it was done.

    Parameters
    ----------
    place : number of the trial in the budget, from 0.
    journal : the file that all trials of the model share.
    checkpoint : where the training is kept while it runs.

    Returns
    -------
    What came out, JSON-ready: `study`, `place`, `state`, `values` (what was tried), `score` (the metric), `board` (every
    metric), `seconds`, `why` (it failed), `ended` (when); of a trial that was left out the first three.
    """
    study = studies.open_study(journal, task.study, task.seed, place)
    about = {"study": study.study_name, "place": place}
    fixed = combination(task.search.space, task.seed, place)
    if fixed == {}:
        task.say(f"trial {place} is left out: every combination is tried before")
        return {**about, "state": LEFT_OUT}
    if task.search.hours is not None and not studies.begun(study, place):
        hours = sum(trial.user_attrs[OUTCOME]["seconds"] for trial in studies.ended(study)) / 3600
        if hours >= task.search.hours:
            task.say(f"trial {place} is left out: finished ones took {hours:.3g} of {task.search.hours:g} hours")
            return {**about, "state": LEFT_OUT}
    space = studies.distributions(task.search.space, model_class(task.type).Settings)
    trial = studies.claim(study, place, space, fixed)
    known = study.trials[trial.number]
    if known.state.is_finished():
        task.say(f"trial {place} was done before")
        return {**about, **known.user_attrs[OUTCOME]}
    try:
        _do(task, trial, checkpoint)
    except UpdateFinishedTrialError:
        task.say(f"trial {place} was finished meanwhile by a job that an earlier run had left behind")
    return {**about, **study.trials[trial.number].user_attrs[OUTCOME]}


def _do(task: Task, trial: Trial, checkpoint: Path) -> None:
    chosen = values(task.search.space, trial.params)
    twin = next((other for other in studies.ended(trial.study) if other.params == trial.params), None)
    if twin is not None:
        task.say(f"{chosen} as in trial {twin.user_attrs[studies.PLACE]}: not trained again")
        outcome, value, watch = {**twin.user_attrs[OUTCOME], "seconds": 0.0}, twin.value, None
    else:
        task.say(f"trying {chosen}")
        settings = model_class(task.type).Settings.model_validate(changed(task.settings, chosen))
        identity = store.identity(
            task.type, settings, task.context, (task.rows("train"), task.rows("valid")), task.device
        )
        watch = Watched(checkpoint, identity, task.say, trial if task.search.prune else None)
        started = time.monotonic()
        outcome = {"values": chosen, **_attempt(task, settings, watch)}
        outcome["seconds"] = round(time.monotonic() - started + watch.earlier_seconds, 1)
        value = badness(task.metric, outcome["score"]) if outcome["state"] == COMPLETE else None
    outcome["ended"] = datetime.now(UTC).isoformat(timespec="milliseconds")
    trial.set_user_attr(OUTCOME, jsonable(outcome))
    if outcome["state"] == COMPLETE:
        trial.study.tell(trial, value)
    else:
        trial.study.tell(trial, state=TrialState.PRUNED)
    if watch is not None:
        watch.remove()


def _attempt(task: Task, settings: Settings, watch: Watched) -> dict[str, Any]:
    """Train and score: `state`, and `score` and `board` or `why` there are none."""
    train, valid, calib = (task.rows(split) for split in ("train", "valid", "calib"))
    about = task.model, task.type, settings, task.context
    try:
        trained = fit_and_calibrate(*about, train, valid, calib, task.device, task.say, watch)
        board = validation_board(trained, task.sample["valid"])
    except optuna.TrialPruned as error:
        return {"state": PRUNED, "why": str(error)}
    except (TrainingError, torch.OutOfMemoryError) as error:
        task.say(f"{type(error).__name__}: {error}")
        return {"state": FAILED, "why": f"{type(error).__name__}: {error}"}
    score = board[task.metric]
    task.say(f"{task.metric} {score:.6g} on the validation rows")
    if not math.isfinite(score):
        return {"state": FAILED, "why": f"{task.metric} is {score}", "board": board}
    return {"state": COMPLETE, "score": score, "board": board}


def validation_board(trained: TrainedModel, valid: pa.Table) -> dict[str, float]:
    """Every metric of the leaderboard on validation rows."""
    predictions, _, _ = predict_sample(trained, valid, "valid", 0)
    return Rows.of(predictions).board()
