"""Weights of labelled rows: what a known selection took away, they give back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from zmill.config import Weights
from zmill.sample.labelled import weigh_splits
from zmill.sample.sample import SPLITS, SampleError
from zmill.sample.target import Target
from zmill.sample.weights import SurveyDensity, compare, distance, effective_rows, limited


def survey(n: int, seed: int = 1) -> np.ndarray:
    """Places in magnitude and two colors, the fainter the bluer."""
    rng = np.random.default_rng(seed)
    mag = 25 - rng.exponential(1.5, n)
    return np.stack([mag, rng.normal(0.3 * (24 - mag), 0.4), rng.normal(0.5, 0.3, n)], axis=1)


def thinned(rows: np.ndarray, seed: int = 2) -> np.ndarray:
    """Labelled rows: bright ones nearly all, faint ones rarely, red ones preferred."""
    chance = 0.9 / (1 + np.exp(2 * (rows[:, 0] - 22))) + 0.05 / (1 + np.exp(-3 * (rows[:, 1] - 0.5)))
    return rows[np.random.default_rng(seed).random(len(rows)) < chance]


def test_rows_that_were_labelled_at_random_weigh_the_same() -> None:
    rows = survey(40_000)
    labelled = rows[np.random.default_rng(3).random(len(rows)) < 0.05]
    weight = SurveyDensity(rows).weigh(labelled, 50, 20)
    assert weight.mean() == pytest.approx(1)
    assert np.std(weight) < 0.2  # one over the root of 50 neighbors is 0.14
    assert effective_rows(weight) > 0.95 * len(labelled)
    for axis in compare(labelled, weight, rows, ["mag", "blue", "red"]):
        assert axis["ks_weighted"] < axis["ks"] + 0.02


def test_a_selection_in_magnitude_and_color_is_undone() -> None:
    rows = survey(40_000)
    labelled = thinned(rows)
    weight = SurveyDensity(rows).weigh(labelled, 10, 50)
    before, after = (
        [axis[key] for axis in compare(labelled, weight, rows, ["mag", "blue", "red"])] for key in ("ks", "ks_weighted")
    )
    assert before[0] > 0.35
    assert after[0] < before[0] / 5 and after[1] < before[1] / 3
    assert effective_rows(weight) < len(labelled)
    # what weighs more is what was chosen less
    chance = 0.9 / (1 + np.exp(2 * (labelled[:, 0] - 22))) + 0.05 / (1 + np.exp(-3 * (labelled[:, 1] - 0.5)))
    assert np.corrcoef(np.log(weight), -np.log(chance))[0, 1] > 0.9


def test_the_order_of_rows_does_not_matter() -> None:
    rows = survey(5000)
    labelled = thinned(rows)
    order = np.random.default_rng(4).permutation(len(labelled))
    weight = SurveyDensity(rows).weigh(labelled, 5, 20)
    shuffled = SurveyDensity(rows[::-1]).weigh(labelled[order], 5, 20)
    np.testing.assert_allclose(shuffled, weight[order], rtol=1e-12)


def test_what_is_unknown_on_both_sides_does_no_harm() -> None:
    rows = np.concatenate([survey(20_000), np.full((20_000, 1), np.nan)], axis=1)
    rows[np.random.default_rng(5).random(len(rows)) < 0.3, 2] = np.nan
    labelled = thinned(rows)
    weight = SurveyDensity(rows).weigh(labelled, 10, 50)
    assert np.isfinite(weight).all() and weight.min() > 0
    told = compare(labelled, weight, rows, ["mag", "blue", "red", "never"])
    assert [axis["name"] for axis in told] == ["mag", "blue", "red"]
    assert told[0]["ks_weighted"] < told[0]["ks"] / 4
    for axis in told:
        assert sum(axis["survey"]) == pytest.approx(1, abs=1e-4) == sum(axis["weighted"])


def test_survey_rows_without_near_labels_are_counted() -> None:
    rows = survey(10_000)
    labelled = rows[np.random.default_rng(3).random(len(rows)) < 0.1]
    assert SurveyDensity(rows).far(labelled, 10) < 0.05
    elsewhere = np.concatenate([rows, rows[:2500] + np.array([0, 30, 0])])
    assert SurveyDensity(elsewhere).far(labelled, 10) == pytest.approx(
        0.2 + 0.8 * SurveyDensity(rows).far(labelled, 10), abs=0.01
    )


@given(st.lists(st.floats(1e-3, 1e6), min_size=2, max_size=60), st.floats(1.01, 100))
def test_weights_have_mean_one_and_a_largest_value(values: list[float], most: float) -> None:
    given_, found = np.array(values), limited(np.array(values), most)
    assert found.mean() == pytest.approx(1)
    assert found.max() <= most * (1 + 1e-12) and found.min() > 0
    free = found < most * (1 - 1e-9)
    if free.sum() > 1:  # in proportion to what was given
        ratio = found[free] / given_[free]
        assert ratio.max() == pytest.approx(ratio.min())
    assert np.all(np.diff(found[np.argsort(given_)]) >= -1e-12)


def test_distances_are_those_of_repeated_rows() -> None:
    rng = np.random.default_rng(6)
    values, others = rng.normal(0, 1, 300).round(1), rng.normal(0.3, 1, 500).round(1)
    weight = rng.integers(1, 4, 300).astype(float)
    twice = np.repeat(values, weight.astype(int))
    assert distance(values, weight, others) == pytest.approx(ks_2samp(twice, others).statistic)


def split_rows(n: int = 4000) -> tuple[np.ndarray, np.ndarray, Target]:
    rows = survey(20_000)
    labelled = thinned(rows)[:n]
    side = np.random.default_rng(7).choice(SPLITS, len(labelled), p=[0.5, 0.2, 0.1, 0.2])
    return labelled, side, Target(rows, len(rows), len(rows), len(rows))


def test_every_split_stands_for_the_survey_by_itself() -> None:
    labelled, side, target = split_rows()
    weight, told = weigh_splits(labelled, side, target, Weights(), 2)
    for name in SPLITS:
        mine = side == name
        assert weight[mine].mean() == pytest.approx(1)
        assert told["splits"][name]["effective_rows"] == pytest.approx(effective_rows(weight[mine]), abs=0.1)
        plain = distance(labelled[mine, 0], np.ones(mine.sum()), target.values[:, 0])
        assert distance(labelled[mine, 0], weight[mine], target.values[:, 0]) < plain / 2
    # rows of other splits, however strange, do not reach the training rows' weights
    strange = np.where((side == "train")[:, None], labelled, labelled - 3)
    again, _ = weigh_splits(strange, side, target, Weights())
    assert np.array_equal(again[side == "train"], weight[side == "train"])
    assert not np.array_equal(again[side == "test"], weight[side == "test"])


def test_fewer_labels_than_neighbors() -> None:
    rows = survey(2000)
    weight = SurveyDensity(rows).weigh(rows[:5], 10, 20)
    assert weight.mean() == pytest.approx(1) and np.isfinite(weight).all()


def test_a_survey_of_which_no_row_passes_is_refused() -> None:
    labelled, side, target = split_rows()
    empty = Target(target.values[:0], 20_000, 20_000, 0)
    with pytest.raises(SampleError, match=r"none of the 20,000 rows.*weights.method to none"):
        weigh_splits(labelled, side, empty, Weights())


def test_the_summary_is_json() -> None:
    labelled, side, target = split_rows()
    weight, told = weigh_splits(labelled, side, target, Weights())
    axes = compare(labelled, weight, target.values, ["a", "b", "c"])
    assert json.loads(json.dumps(told | {"axes": axes}, allow_nan=False))["rows"]["drawn"] == 20_000
