"""The model is chosen by validation rows alone, in the metric's own direction, and says why."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from zmill import metrics
from zmill.training.selection import COLUMNS, SelectionError, choose, leaderboard


def evaluation(valid: dict[str, float | None], test: float = 0.5, blocks: int = 30) -> dict[str, Any]:
    """metrics.json with the named metrics on validation rows and 0.5 for all others."""
    board = dict.fromkeys(metrics.ALL, 0.5) | valid
    intervals = {"blocks": blocks, "metrics": {name: [0.0, 0.01] for name in metrics.ALL}}
    if blocks < metrics.FEWEST_BLOCKS:
        intervals["metrics"] = {name: [None, None] for name in metrics.ALL}
    return {
        "type": "knn",
        "seed": 1,
        "model_hash": "0f",
        "train_seconds": 2.0,
        "rows_per_s": 1e5,
        "splits": {
            "valid": {"n": 100, "board": board, "intervals": intervals},
            "test": {"n": 200, "board": dict.fromkeys(metrics.ALL, test), "intervals": intervals},
        },
    }


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("crps", (0.03, 0.02, 0.04), "b"),
        ("log_score", (0.9, 1.2, 1.1), "b"),
        ("r2", (0.9, 0.8, 0.7), "a"),
        ("bias", (-0.02, 0.01, 0.015), "b"),
        ("cde_loss", (-5, -4, -6), "c"),
    ],
)
def test_the_best_by_the_metric_is_chosen(metric: str, values: tuple[float, ...], best: str) -> None:
    found = choose({name: evaluation({metric: v}) for name, v in zip("abc", values, strict=True)}, metric)
    assert (found["model"], found["metric"], found["split"]) == (best, metric, "valid")
    assert found["why"].startswith(f"{metric} {found['value']:.5g} on 100 valid rows")
    assert found["runner_up"]["model"] != best


def test_test_rows_choose_nothing() -> None:
    evaluations = {"a": evaluation({"crps": 0.03}, test=0.9), "b": evaluation({"crps": 0.04}, test=0.1)}
    assert choose(evaluations, "crps")["model"] == "a"


def test_a_tie_goes_to_the_first_name_and_a_near_tie_is_stated() -> None:
    evaluations = {"b": evaluation({"crps": 0.005}), "a": evaluation({"crps": 0.005})}
    found = choose(evaluations, "crps")
    assert found["model"] == "a"
    assert "within the 68 % interval" in found["why"]


def test_too_few_blocks_of_sky_are_stated() -> None:
    evaluations = {name: evaluation({"crps": 0.005}, blocks=3) for name in "ab"}
    found = choose(evaluations, "crps")
    assert found["interval"] == [None, None] and found["blocks"] == 3
    assert "within" not in found["why"]
    assert found["why"].endswith("; 3 block(s) of sky are too few to estimate the uncertainty")
    certain = choose({"a": evaluation({"crps": 0.005})}, "crps")
    assert certain["interval"] == [0.0, 0.01] and "blocks" not in certain["why"]


def test_metrics_with_weights_have_a_row_of_their_own() -> None:
    weighed = evaluation({"crps": 0.03})
    board, intervals = (
        dict.fromkeys(metrics.ALL, 0.7),
        {"blocks": 9, "metrics": {name: [0.6, None] for name in metrics.ALL}},
    )
    weighed["splits"]["valid"]["weighted"] = {"effective_rows": 61.5, "board": board, "intervals": intervals}
    plain, weighted, test = csv.DictReader(io.StringIO(leaderboard({"a": weighed}, "crps")))
    assert [row["weighted"] for row in (plain, weighted, test)] == ["no", "yes", "no"]
    assert (plain["crps"], plain["n"], plain["effective_rows"], plain["blocks"]) == ("0.03", "100", "100", "30")
    assert (weighted["crps"], weighted["n"], weighted["effective_rows"], weighted["blocks"]) == (
        "0.7",
        "100",
        "61.5",
        "9",
    )
    assert (plain["crps_low"], plain["crps_high"]) == ("0", "0.01")
    assert (weighted["crps_low"], weighted["crps_high"]) == ("0.6", "")


def test_a_model_without_the_metric_is_not_chosen() -> None:
    evaluations = {"a": evaluation({"r2": None}), "b": evaluation({"r2": 0.1})}
    found = choose(evaluations, "r2")
    assert found["model"] == "b"
    assert found["runner_up"] is None
    with pytest.raises(SelectionError, match="no finite value on the valid rows for any of a"):
        choose({"a": evaluation({"r2": None})}, "r2")


def test_the_leaderboard_has_a_row_per_model_and_split() -> None:
    evaluations = {"a": evaluation({"crps": 0.03}), "b": evaluation({"crps": 0.02}), "c": evaluation({"crps": None})}
    rows = list(csv.DictReader(io.StringIO(leaderboard(evaluations, "crps"))))
    assert [(row["model"], row["split"]) for row in rows] == [(m, s) for m in "bac" for s in ("valid", "test")]
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["crps"] == "0.02"
    assert rows[4]["crps"] == ""
