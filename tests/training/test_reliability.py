"""Purity, share and completeness, counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from zmill.pdf.odds import Odds
from zmill.training.evaluate import jsonable
from zmill.training.reliability import BINS, CURVE, PURITIES, reliability


def predictions(stated: np.ndarray, right: np.ndarray, weight: np.ndarray | None = None) -> pa.Table:
    z = np.full(len(stated), 1.0)
    return pa.table(
        {
            "redshift": z,
            "z_mode": (z + np.where(right, 0.01, 0.2)).astype(np.float32),
            "odds": stated.astype(np.float32),
            "weight": np.ones(len(z)) if weight is None else weight,
        }
    )


def cut(found: dict, purity: float, by: str) -> dict:
    return next(one[by] for one in found["cuts"] if one["purity"] == purity)


def test_shares_are_counted() -> None:
    stated = np.array([1.0, 1.0, 0.98, 0.9, 0.7, 0.5, 0.3, 0.3, 0.1, 0.0])
    right = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0], bool)
    found = reliability(predictions(stated, right), Odds(0.05))
    assert found["width"] == 0.05 and found["right"] == 0.5
    assert found["odds"] == pytest.approx(stated.mean())
    measured, stated = cut(found, 0.99, "measured"), cut(found, 0.99, "stated")
    assert measured["share"] == 0.3 and measured["purity"] == 1 and measured["completeness"] == pytest.approx(3 / 5)
    assert stated["share"] == 0.3 and stated["odds"] == pytest.approx(0.98)
    assert cut(found, 0.9, "stated")["share"] == 0.5
    assert cut(found, 0.9, "stated")["purity"] == pytest.approx(0.8)
    assert cut(found, 0.9, "stated")["error"] == pytest.approx(np.sqrt(0.8 * 0.2 / 5))
    assert cut(found, 0.9, "measured")["share"] == 0.3
    assert found["curve"]["share"][-1] == 1 and found["curve"]["completeness"][-1] == 1
    assert len(found["curve"]["share"]) == 8, "rows with equal odds are selected together"
    assert "weighted" not in found


def test_a_purity_that_no_row_reaches_has_no_share() -> None:
    found = reliability(predictions(np.full(20, 0.2), np.zeros(20, bool)), Odds(0.05))
    assert all(one["stated"] is None and one["measured"] is None for one in found["cuts"])
    assert [one["purity"] for one in found["cuts"]] == list(PURITIES)
    json.dumps(jsonable(found), allow_nan=False)


def test_weights_stand_for_rows() -> None:
    rng = np.random.default_rng(1)
    stated, right = rng.random(60), rng.random(60) < 0.7
    weight = rng.integers(1, 4, 60)
    doubled = reliability(predictions(stated.repeat(weight), right.repeat(weight)), Odds(0.05))
    found = reliability(predictions(stated, right, weight.astype(float)), Odds(0.05))
    for key in ("right", "odds"):
        assert found["weighted"][key] == pytest.approx(doubled[key])
    for one, other in zip(found["weighted"]["cuts"], doubled["cuts"], strict=True):
        for by in ("stated", "measured"):
            assert (one[by] is None) == (other[by] is None)
            if one[by]:
                assert one[by]["share"] == pytest.approx(other[by]["share"])


def test_many_rows_are_a_short_curve_and_bins_of_equal_numbers() -> None:
    rng = np.random.default_rng(1)
    stated = rng.random(10_003)
    found = reliability(predictions(stated, rng.random(10_003) < stated), Odds(0.05))
    assert len(found["curve"]["share"]) == CURVE and len(found["bins"]) == BINS
    assert sum(one["n"] for one in found["bins"]) == 10_003
    assert all(abs(one["right"] - one["odds"]) < 4 * one["error"] + 1e-3 for one in found["bins"])
    assert abs(cut(found, 0.9, "stated")["purity"] - 0.9) < 4 * cut(found, 0.9, "stated")["error"]
