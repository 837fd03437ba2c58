"""Intervals hold what they state, by bin of magnitude, however wrong the densities are."""

from __future__ import annotations

import json
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from zmill.pdf import calibration_fit, conformal, points
from zmill.pdf.conformal import Conformal
from zmill.pdf.grid import Grid

GRID = Grid(0.0, 3.0, 301)


def rows(n: int, seed: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Densities much too narrow for faint rows and too wide for bright ones; redshifts with outliers; magnitudes."""
    rng = np.random.default_rng(seed)
    mean, magnitude = rng.uniform(0.5, 2.5, n), rng.uniform(18, 24, n)
    z = np.clip(rng.normal(mean, 0.06 * np.exp(0.3 * (magnitude - 21))), 0.01, 2.99)
    lost = rng.random(n) < 0.03
    z[lost] = rng.uniform(0, 3, lost.sum())
    density = norm.pdf(GRID.z, mean[:, None], 0.06)
    return GRID.normalize(torch.as_tensor(density, dtype=torch.float32)), z, magnitude


def held(found: Conformal, density: torch.Tensor, z: np.ndarray, magnitude: np.ndarray) -> dict[float, np.ndarray]:
    """Whether the interval of each coverage holds the redshift."""
    own = found.levels()[found.bin_of(torch.as_tensor(magnitude, dtype=torch.float32))]
    _, quantiles = points.summarize_with(density, GRID, points.LEVELS, own)
    ends = dict(zip(conformal.COLUMNS, quantiles[:, len(points.LEVELS) :].double().numpy().T, strict=True))
    return {
        coverage: (ends[conformal.ends(coverage)[0]] <= z) & (z <= ends[conformal.ends(coverage)[1]])
        for coverage in conformal.COVERAGES
    }


def test_the_stated_coverage_is_held_in_every_bin_by_rows_not_seen() -> None:
    density, z, magnitude = rows(2000, 1)
    calibration, pit = calibration_fit.fit(density.__getitem__, GRID, z)
    found = conformal.fit(pit, magnitude, np.ones(len(z)))
    assert found.bins == conformal.MAX_BINS + 1
    density, z, magnitude = rows(20_000, 2)
    after = calibration(density, GRID)
    number = found.bin_of(torch.as_tensor(magnitude, dtype=torch.float32)).numpy()
    for coverage, inside in held(found, after, z, magnitude).items():
        assert inside.mean() == pytest.approx(coverage, abs=0.02)
        for bin_ in range(conformal.MAX_BINS):
            # 200 calibration rows a bin leave a spread of 0.033 and 0.015.
            assert inside[number == bin_].mean() == pytest.approx(coverage, abs=0.1 if coverage < 0.9 else 0.05), bin_


def test_scores_of_the_rows_that_a_calibration_was_fitted_on_would_promise_too_much() -> None:
    """Over many small samples the coverage is at least what is stated: no row was judged by what it had a part in."""
    inside: dict[float, list[float]] = {coverage: [] for coverage in conformal.COVERAGES}
    new_density, new_z, new_magnitude = rows(2000, 99)
    for seed in range(12):
        density, z, magnitude = rows(110, seed)
        calibration, pit = calibration_fit.fit(density.__getitem__, GRID, z)
        found = conformal.fit(pit, magnitude, np.ones(len(z)))
        after = calibration(new_density, GRID)
        for coverage, values in held(found, after, new_z, new_magnitude).items():
            inside[coverage].append(values.mean())
    for coverage, shares in inside.items():
        assert np.mean(shares) > coverage - 2 * np.std(shares) / np.sqrt(len(shares))


@given(st.integers(1, 400), st.sampled_from(conformal.COVERAGES), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_the_content_is_the_score_of_the_finite_sample_rank(n: int, coverage: float, seed: int) -> None:
    score = np.random.default_rng(seed).random(n)
    rank = ceil(round((n + 1) * coverage, 9))
    expected = 1.0 if rank > n else np.sort(score)[rank - 1]
    assert conformal.content(score, np.ones(n), coverage) == expected
    assert conformal.content(score, np.full(n, 0.3), coverage) == expected


def test_rows_of_more_weight_count_more() -> None:
    score, weight = np.repeat([0.2, 0.9], 500), np.repeat([1.0, 9.0], 500)
    assert conformal.content(score, np.ones(1000), 0.45) == 0.2
    assert conformal.content(score, weight, 0.45) == 0.9


def test_rows_without_a_magnitude_have_a_bin_of_their_own() -> None:
    rng = np.random.default_rng(3)
    magnitude = rng.uniform(18, 24, 1000)
    magnitude[:200] = np.nan
    pit = np.where(np.isnan(magnitude), rng.beta(0.3, 0.3, 1000), rng.uniform(0.3, 0.7, 1000))
    found = conformal.fit(pit, magnitude, np.ones(1000))
    assert found.bins == 8 + 1
    assert found.contents[-1][0] > 0.7 > 0.4 > max(content[1] for content in found.contents[:-1])
    assert found.bin_of(torch.tensor([torch.nan, 17.0, 25.0])).tolist() == [8, 0, 7]


def test_too_few_rows_state_nothing_but_the_grid() -> None:
    found = conformal.fit(np.array([0.4, 0.5, 0.6]), np.array([20.0, 21.0, 22.0]), np.ones(3))
    assert found.contents == ((found.contents[0][0], 1.0), (1.0, 1.0))
    density, _, _ = rows(5, 4)
    levels = found.levels()[found.bin_of(torch.tensor([20.0, 20.0, 20.0, 20.0, torch.nan]))]
    _, z = points.summarize_with(density, GRID, points.LEVELS, levels)
    ends = z[:, len(points.LEVELS) :]
    assert torch.equal(ends[:, 0], torch.full((5,), 0.0))
    assert torch.equal(ends[:, 3], torch.full((5,), 3.0))
    assert ends[4].tolist() == [0, 0, 3, 3]
    assert bool((ends[:4, 1] > 0.1).all())


def test_no_calibration_row_with_a_magnitude() -> None:
    found = conformal.fit(np.full(150, 0.5), np.full(150, np.nan), np.ones(150))
    assert found.bins == 2
    assert found.bin_of(torch.tensor([20.0, torch.nan])).tolist() == [0, 1]
    assert found.contents == ((1.0, 1.0), (0.0, 0.0))


def test_equal_magnitudes_are_one_bin() -> None:
    found = conformal.fit(np.linspace(0, 1, 1000), np.full(1000, 20.0), np.ones(1000))
    assert found.contents[found.bin_of(torch.tensor([20.0])).item()][0] == pytest.approx(0.68, abs=0.01)


def test_the_state_is_json() -> None:
    _, z, magnitude = rows(500, 5)
    found = conformal.fit(z / 3, magnitude, np.ones(500))
    assert Conformal.restore(json.loads(json.dumps(found.state()))) == found
