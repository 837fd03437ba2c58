"""Calibrated odds are the frequency of right redshifts, and keep the order of the rows."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zmill.pdf import odds
from zmill.pdf.odds import Odds


def rows(n: int, seed: int, above: float, below: float, offset: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Odds, true probabilities and whether redshifts are right, of which the map is known."""
    rng = np.random.default_rng(seed)
    given = rng.beta(2, 0.7, n).clip(1e-5, 1 - 1e-5)
    true = 1 / (1 + np.exp(-(above * np.log(given) - below * np.log1p(-given) + offset)))
    return given, true, rng.random(n) < true


@pytest.mark.parametrize("map_", [(0.7, 0.4, -0.3), (2.0, 1.5, 1.0), (1.0, 1.0, 0.0)], ids=["bold", "shy", "right"])
def test_the_map_is_found(map_: tuple[float, float, float]) -> None:
    given, true, right = rows(20_000, 1, *map_)
    found = odds.fit(given, right, np.ones(len(given)), 0.003)
    calibrated = found(torch.from_numpy(given)).numpy()
    assert np.abs(calibrated - true).mean() < 0.01
    test, _, right = rows(20_000, 2, *map_)
    stated = found(torch.from_numpy(test)).numpy()
    for part in np.array_split(np.argsort(stated), 10):
        error = np.sqrt(stated[part].mean() * (1 - stated[part].mean()) / len(part)) + 0.004
        assert abs(stated[part].mean() - right[part].mean()) < 3 * error


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_any_fit_keeps_the_order_and_gives_probabilities(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(100, 300))
    given = rng.beta(*rng.uniform(0.2, 3, 2), n).round(3)  # 0 and 1 are among them
    found = odds.fit(given, rng.random(n) < rng.random(), rng.uniform(0.1, 1, n), 0.1)
    calibrated = found(torch.linspace(0, 1, 1001)).numpy()
    assert np.isfinite(calibrated).all() and calibrated.min() >= 0 and calibrated.max() <= 1
    assert (np.diff(calibrated) >= -1e-6).all()


def test_weights_count() -> None:
    given, _, right = rows(5000, 3, 1.0, 1.0, 0.0)
    weight = np.where(right, 1.0, 0.25)
    plain, weighted = (odds.fit(given, right, w, 0.1) for w in (np.ones(5000), weight))
    half = torch.tensor([0.5])
    assert weighted(half) > plain(half) + 0.1


def test_few_rows_are_no_calibration() -> None:
    given, _, right = rows(99, 1, 0.5, 0.5, 1.0)
    assert odds.fit(given, right, np.ones(99), 0.02) == Odds(0.02)
    assert odds.fit(given[:0], right[:0], np.zeros(0), 0.02) == Odds(0.02)
    same = torch.rand(50)
    assert Odds(0.02)(same) is same


def test_a_redshift_is_right_within_the_width() -> None:
    z, at = np.array([0.5, 0.5, 0.5, -0.0]), np.array([0.5149, 0.5151, 0.4851, 0.02], np.float32)
    assert Odds(0.01).right(at, z).tolist() == [True, False, True, False]


def test_it_is_stored_as_json() -> None:
    found = odds.fit(*(part for part in rows(500, 1, 0.5, 0.5, 0.2)[::2]), np.ones(500), 0.003)
    assert Odds.restore(json.loads(json.dumps(found.state()))) == found
