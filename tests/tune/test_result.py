"""What a search leaves: a winner that trains again without the search, a table, and which settings mattered."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from small_search import SEARCH, SETTINGS, done, task

from zmill.config import Config, Search, parse
from zmill.models.registry import check_models
from zmill.training.trained import fit_and_calibrate
from zmill.tune import result
from zmill.tune.study import TuneError
from zmill.tune.trial import validation_board

WIDE = parse(
    Search,
    {
        "space": {
            "lr": {"low": 1e-6, "high": 1e-2, "log": True},
            "batch": {"low": 16, "high": 64},
            "hidden": [[8], [16]],
        }
    },
    "",
)


def outcomes(n: int = 40, **changes: Any) -> list[dict[str, Any]]:
    """Trials whose score depends on the logarithm of the learning rate, and hardly on the batch."""
    random = np.random.default_rng(1)
    found = []
    for number in range(n):
        lr, batch = 10 ** random.uniform(-6, -2), int(random.integers(16, 65))
        score = 0.02 + 0.01 * (math.log10(lr) + 3) ** 2 + 1e-5 * batch
        found.append(
            {
                "study": "quick-1",
                "number": number,
                "state": "complete",
                "values": {"lr": lr, "batch": batch, "hidden": [[8], [16]][number % 2]},
                "score": score,
                "board": {"mse": score, "r2": 1 - score, "crps": None},
                "seconds": 2.0,
                "ended": f"2026-01-01T00:{n - number:02d}:00.000+00:00",
                **changes,
            }
        )
    return found


def described(trials: list[dict[str, Any]]) -> dict[str, Any]:
    return result.describe("quick", "fcnn", {"epochs": 5}, WIDE, "mse", 1, trials)


def test_the_winner_reproduces_its_score(tmp_path: Path) -> None:
    given = task()
    found = result.describe(
        "quick", "fcnn", SETTINGS, parse(Search, SEARCH, ""), "mse", 1, done(given, tmp_path, range(4))
    )
    settings = parse(Config, yaml.safe_load(result.entry(found)), "best.yaml")
    _, own = check_models(settings.models)["quick"]
    rows = (given.rows(split) for split in ("train", "valid", "calib"))
    trained = fit_and_calibrate(
        "quick", settings.models["quick"].type, own, given.context, *rows, given.device, given.log
    )
    best = next(trial for trial in found["trials"] if trial["number"] == found["best"])
    assert validation_board(trained, given.sample["valid"])["mse"] == best["score"]
    assert best["score"] == min(trial["score"] for trial in found["trials"] if "score" in trial)
    assert result.entry(found).startswith(
        f"# quick: the best of 4 trials by mse on the validation rows, {best['score']:.6g}"
    )


def test_a_winner_of_nested_settings_is_a_plain_entry_that_can_be_trained(tmp_path: Path) -> None:
    small = {"members": 1, "epochs": 2, "width": 16, "blocks": 1, "frequencies": 0}
    settings = {"networks": small, "neighbors": {**small, "candidates": 64}, "distill": False}
    search = {"space": {"networks.width": [8, 32], "neighbors.lr": {"low": 1e-4, "high": 1e-1, "log": True}}}
    given = task(search, type="ensemble", settings=settings, metric="crps")
    found = result.describe("quick", "ensemble", settings, given.search, "crps", 1, done(given, tmp_path, range(2)))
    entry = yaml.safe_load(result.entry(found))
    best = next(trial for trial in found["trials"] if trial["number"] == found["best"])
    assert entry["models"]["quick"]["networks"] == {**small, "width": best["values"]["networks.width"]}
    plain = parse(Config, entry, "best.yaml")
    _, own = check_models(plain.models)["quick"]
    rows = (given.rows(split) for split in ("train", "valid", "calib"))
    trained = fit_and_calibrate("quick", "ensemble", own, given.context, *rows, given.device, given.log)
    assert validation_board(trained, given.sample["valid"])["crps"] == best["score"]


def test_the_entry_says_what_was_not_searched_too() -> None:
    entry = yaml.safe_load(result.entry(described(outcomes())))["models"]["quick"]
    assert set(entry) == {"type", "epochs", "lr", "batch", "hidden"}
    assert entry["type"] == "fcnn" and entry["epochs"] == 5


def test_the_table_has_a_row_per_trial_in_the_order_of_ending() -> None:
    trials = outcomes(8)
    trials[3] = {**trials[3], "state": "pruned", "why": 'behind, "far"', "score": None, "board": None}
    trials.append({"study": "quick-1", "number": 8, "state": "left out"})
    rows = list(csv.DictReader(io.StringIO(result.table(described(trials)))))
    assert [row["trial"] for row in rows] == [str(number) for number in range(7, -1, -1)]
    assert list(rows[0]) == ["trial", "state", "mse", "lr", "batch", "hidden", "seconds", "r2", "crps", "why"]
    assert rows[4]["state"] == "pruned" and rows[4]["mse"] == "" and rows[4]["why"] == 'behind, "far"'
    assert rows[0]["hidden"] == "[16]"
    assert float(rows[0]["mse"]) == pytest.approx(trials[7]["score"], rel=1e-5)


def test_the_setting_that_matters_is_named_on_its_own_scale() -> None:
    found = described(outcomes())["importance"]
    assert next(iter(found)) == "lr"
    assert found["lr"] > 0.8
    assert sum(found.values()) == pytest.approx(1, abs=1e-3)
    assert described(outcomes())["importance"] == found


def test_importance_is_not_given_with_too_few_trials() -> None:
    assert described(outcomes(5))["importance"] == {}
    assert described(outcomes(20, score=0.5))["importance"] == {}


def test_a_search_without_a_score_is_refused_with_its_reason() -> None:
    failed = outcomes(2, state="failed", why="TrainingError: the loss became nan")
    with pytest.raises(
        TuneError, match="none of 2 trials has a score; the first failed: TrainingError: the loss became nan"
    ):
        described(failed)


def test_trials_of_two_searches_are_not_compared() -> None:
    with pytest.raises(TuneError, match="remove progress/tune/quick"):
        described([*outcomes(3), *outcomes(3, study="quick-2")])
