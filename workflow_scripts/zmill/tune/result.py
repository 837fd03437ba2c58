"""The result of a search: the best settings as an entry of `models:`, all trials, and the importance of settings."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from zmill.config import Search
from zmill.metrics import badness
from zmill.models.registry import model_class
from zmill.tune.space import changed, label, of_model
from zmill.tune.study import TuneError, distributions
from zmill.tune.trial import COMPLETE, LEFT_OUT

Outcome = dict[str, Any]
"""The result of `zmill.tune.trial.run`."""
FEWEST = 6
"""Fewest scored trials for which the importance of settings is estimated."""


def ranked(outcomes: Sequence[Outcome], metric: str) -> list[Outcome]:
    """The scored trials, the best first; equal ones in the order of the budget.

    Raises
    ------
    TuneError
        If no trial has a score.
    """
    scored = [outcome for outcome in outcomes if outcome["state"] == COMPLETE]
    if not scored:
        why = next((outcome["why"] for outcome in outcomes if outcome.get("why")), "")
        raise TuneError(
            f"none of {len(outcomes)} trials has a score{f'; the first failed: {why}' if why else ''}: narrow the space, or "
            "give more trials or hours"
        )
    return sorted(scored, key=lambda outcome: (badness(metric, outcome["score"]), outcome["number"]))


def describe(
    model: str,
    type_: str,
    settings: Mapping[str, Any],
    search: Search,
    metric: str,
    seed: int,
    outcomes: Sequence[Outcome],
) -> dict[str, Any]:
    """The summary of a search for the report, JSON-ready.

    Parameters
    ----------
    model, type_, settings : name, type and settings of the entry of `models:`.
    outcomes : outcomes of all trials of the budget.

    Raises
    ------
    TuneError
        If no trial was scored, or not all are of one search.
    """
    if len({outcome["study"] for outcome in outcomes}) > 1:
        raise TuneError(
            f"{model}: its trials are of different searches (rows or settings changed between them): remove "
            f"progress/tune/{model} from the results and run again; finished trials of this search are not repeated"
        )
    begun = [outcome for outcome in outcomes if outcome["state"] != LEFT_OUT]
    best = ranked(begun, metric)[0]
    return {
        "model": model,
        "type": type_,
        "metric": metric,
        "space": {
            name: dimension.model_dump(mode="json", exclude_none=True) for name, dimension in search.space.items()
        },
        "budget": len(outcomes),
        "entry": {"type": type_, **changed(settings, of_model(best["values"]))},
        "best": best["number"],
        "importance": importance(type_, search, metric, seed, begun),
        "trials": sorted(begun, key=lambda outcome: outcome["ended"]),
    }


def entry(found: Mapping[str, Any]) -> str:
    """The content of `best.yaml`: the best settings as an entry of `models:`, to paste or to pass with --configfile."""
    best = next(trial for trial in found["trials"] if trial["number"] == found["best"])
    head = (
        f"# {found['model']}: the best of {len(found['trials'])} trials by {found['metric']} on the validation rows, "
        f"{best['score']:.6g} (trial {best['number']}).\n"
    )
    return head + yaml.safe_dump({"models": {found["model"]: found["entry"]}}, sort_keys=False)


def table(found: Mapping[str, Any]) -> str:
    """The content of `trials.csv`: a row per trial in the order in which they ended; missing numbers are empty."""
    boards = [trial["board"] for trial in found["trials"] if trial.get("board")]
    metrics = [name for name in boards[0] if name != found["metric"]]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", found["metric"], *found["space"], "seconds", *metrics, "why"])
    for trial in found["trials"]:
        board = trial.get("board") or {}
        writer.writerow(
            [
                trial["number"],
                trial["state"],
                _text(trial.get("score")),
                *(label(trial["values"][name]) for name in found["space"]),
                trial["seconds"],
                *(_text(board.get(name)) for name in metrics),
                trial.get("why", ""),
            ]
        )
    return text.getvalue()


def importance(type_: str, search: Search, metric: str, seed: int, outcomes: Sequence[Outcome]) -> dict[str, float]:
    """The importance of each setting: its fraction of the variance of the score that single settings explain.

    fANOVA (Hutter et al. 2014) on the scored trials; settings searched on a logarithmic scale are used on that scale. Empty
    with too few trials.
    """
    scored = [outcome for outcome in outcomes if outcome["state"] == COMPLETE]
    if len(scored) < FEWEST or len({outcome["score"] for outcome in scored}) < 2:
        return {}
    study = optuna.create_study()
    space = distributions(search.space, model_class(type_).Settings)
    straight = {
        name: FloatDistribution(math.log(values.low), math.log(values.high))
        if isinstance(values, IntDistribution | FloatDistribution) and values.log
        else values
        for name, values in space.items()
    }
    for outcome in scored:
        tried = {
            name: label(value)
            if isinstance(space[name], CategoricalDistribution)
            else math.log(value)
            if straight[name] is not space[name]
            else value
            for name, value in outcome["values"].items()
        }
        study.add_trial(create_trial(params=tried, distributions=straight, value=badness(metric, outcome["score"])))
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
    return {name: round(fraction, 4) for name, fraction in found.items()}


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
