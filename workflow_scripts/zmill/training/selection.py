"""Selection of the model that is applied to every row: the best on validation rows by one metric."""

from __future__ import annotations

import csv
import io
from typing import Any

from zmill import metrics

SELECTION_SPLIT = "valid"
"""The split that models are selected on; test rows are reported and not used for selection."""
COLUMNS = (
    *(
        "model",
        "split",
        "weighted",
        "point",
        "n",
        "effective_rows",
        "blocks",
        *metrics.ALL,
        "train_seconds",
        "rows_per_s",
    ),
    *metrics.INTERVALS,
)
POINT = "z_median (z_mean: mse mae rms r2)"
ORDER = ("valid", "calib", "test")


class SelectionError(Exception):
    """No model can be selected."""


def leaderboard(evaluations: dict[str, dict[str, Any]], metric: str) -> str:
    """The leaderboard as CSV: a row per model and split, the best on validation rows first; empty where undefined.

    Where labelled rows have weights, a second row has the weighted metrics.

    evaluations : model -> content of its `metrics.json`.
    """
    order = _ranked(evaluations, metric)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for model in [*order, *sorted(set(evaluations) - set(order))]:
        about = evaluations[model]
        for split in sorted(about["splits"], key=ORDER.index):
            found = about["splits"][split]
            cost = {name: about[name] for name in ("train_seconds", "rows_per_s")}
            given = {"model": model, "split": split, "point": POINT, "n": found["n"], **cost}
            for weighted, part in {"no": found, "yes": found.get("weighted")}.items():
                if part is not None:
                    effective = part.get("effective_rows", found["n"])
                    writer.writerow(
                        given | {"weighted": weighted, "effective_rows": _text(effective)} | _measured(part)
                    )
    return text.getvalue()


def _measured(part: dict[str, Any]) -> dict[str, Any]:
    """Metrics, their intervals and the number of sky blocks of the intervals, formatted for the leaderboard."""
    if "board" not in part:  # a split without rows
        return {}
    intervals = part["intervals"]
    ends = {
        f"{name}_{end}": _text(value)
        for name, interval in intervals["metrics"].items()
        for end, value in zip(metrics.ENDS, interval, strict=True)
    }
    return {"blocks": intervals["blocks"], **{name: _text(value) for name, value in part["board"].items()}, **ends}


def choose(evaluations: dict[str, dict[str, Any]], metric: str) -> dict[str, Any]:
    """The content of `best.json`.

    Raises
    ------
    SelectionError
        If the metric has no value for any model.
    """
    order = _ranked(evaluations, metric)
    if not order:
        raise SelectionError(
            f"{metric} has no finite value on the {SELECTION_SPLIT} rows for any of {', '.join(sorted(evaluations))}: "
            "there are too few rows; give more spectroscopic redshifts or choose another select.metric"
        )
    best, *others = order
    value = _value(evaluations[best], metric)
    direction = {1: "highest", -1: "lowest", 0: "nearest to zero"}[metrics.check_metric(metric)]
    why = f"{metric} {value:.5g} on {_split(evaluations[best])['n']:,} {SELECTION_SPLIT} rows, the {direction} of {len(order)} model(s)"
    intervals = _split(evaluations[best])["intervals"]
    low, high = intervals["metrics"][metric]
    second = others[0] if others else None
    if second:
        other = _value(evaluations[second], metric)
        why += f"; next is {second} with {other:.5g}"
        if low is not None and low <= other <= high:
            why += ", within the 68 % interval of the best"
    if intervals["blocks"] < metrics.FEWEST_BLOCKS:
        why += f"; {intervals['blocks']} block(s) of sky are too few to estimate the uncertainty"
    return {
        "model": best,
        "type": evaluations[best]["type"],
        "model_hash": evaluations[best]["model_hash"],
        "metric": metric,
        "split": SELECTION_SPLIT,
        "value": value,
        "interval": [low, high],
        "blocks": intervals["blocks"],
        "runner_up": {"model": second, "value": _value(evaluations[second], metric)} if second else None,
        "why": why,
        "seeds": {model: evaluations[model]["seed"] for model in sorted(evaluations)},
        "test": _board(evaluations[best], "test"),
    }


def _ranked(evaluations: dict[str, dict[str, Any]], metric: str) -> list[str]:
    """Models that have the metric, best first; equal ones in the order of their names."""
    having = [model for model in sorted(evaluations) if _value(evaluations[model], metric) is not None]
    return sorted(having, key=lambda model: metrics.badness(metric, _value(evaluations[model], metric)))


def _split(evaluation: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = evaluation["splits"][SELECTION_SPLIT]
    return found


def _board(evaluation: dict[str, Any], split: str) -> dict[str, Any]:
    found: dict[str, Any] = evaluation["splits"].get(split, {}).get("board", {})
    return found


def _value(evaluation: dict[str, Any], metric: str) -> Any:
    return _board(evaluation, SELECTION_SPLIT).get(metric)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
