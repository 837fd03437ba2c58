"""Calibration repairs densities that are wrong, leaves alone those that are right, and comes back from JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from zmill.pdf import calibration
from zmill.pdf.calibration import Calibration
from zmill.pdf.grid import Grid
from zmill.pdf.values import cdf_at, density_at

GRID = Grid(0.0, 3.0, 301)


def sample(n: int, seed: int, stated: float = 1.0, shift: float = 0.0) -> tuple[torch.Tensor, np.ndarray]:
    """Densities whose stated width is `stated` times the true one, off by `shift` sigma; true redshifts."""
    rng = np.random.default_rng(seed)
    mean, sigma = rng.uniform(0.7, 2.2, n), rng.uniform(0.04, 0.1, n)
    density = norm.pdf(GRID.z, (mean + shift * sigma)[:, None], stated * sigma[:, None])
    return GRID.normalize(torch.as_tensor(density, dtype=torch.float32)), rng.normal(mean, sigma)


def pit(density: torch.Tensor, z: np.ndarray) -> np.ndarray:
    return cdf_at(density, GRID.cdf(density), GRID, torch.as_tensor(z, dtype=torch.float32)).numpy()


def log_score(density: torch.Tensor, z: np.ndarray) -> float:
    return float(density_at(density, GRID, torch.as_tensor(z, dtype=torch.float32)).clamp_min(1e-6).log().mean())


@pytest.mark.parametrize(("stated", "shift"), [(0.6, 0.0), (1.8, 0.0), (1.0, 0.5), (0.7, 0.3)])
def test_wrong_densities_are_repaired_on_rows_not_seen(stated: float, shift: float) -> None:
    found = calibration.fit(*_on_grid(sample(3000, 1, stated, shift)))
    density, z = sample(3000, 2, stated, shift)
    after = found(density, GRID)
    assert kstest(pit(density, z), "uniform").statistic > 0.1
    assert kstest(pit(after, z), "uniform").statistic < 0.04
    assert log_score(after, z) > log_score(density, z) + 0.03
    assert torch.allclose(GRID.integral(after), torch.ones(3000), atol=1e-4)


def test_right_densities_are_left_alone() -> None:
    assert calibration.fit(*_on_grid(sample(3000, 3))) == Calibration()


def test_few_rows_decide_nothing() -> None:
    assert calibration.fit(*_on_grid(sample(calibration.MIN_ROWS - 1, 3, stated=0.5))) == Calibration()


def test_rows_beyond_the_grid_do_not_count() -> None:
    density, z = sample(500, 4, stated=0.6)
    beyond = np.concatenate([z, np.full(500, 7.0)])
    assert calibration.fit(torch.cat([density, density]), GRID, beyond) == calibration.fit(density, GRID, z)


def test_weights_count() -> None:
    one, two = sample(2000, 5, stated=0.6), sample(2000, 6, stated=1.6)
    density, z = torch.cat([one[0], two[0]]), np.concatenate([one[1], two[1]])
    narrow = calibration.fit(density, GRID, z, np.repeat([1.0, 1e-6], 2000))
    wide = calibration.fit(density, GRID, z, np.repeat([1e-6, 1.0], 2000))
    assert kstest(pit(narrow(one[0], GRID), one[1]), "uniform").statistic < 0.04
    assert kstest(pit(wide(two[0], GRID), two[1]), "uniform").statistic < 0.04


def test_the_state_is_json() -> None:
    found = calibration.fit(*_on_grid(sample(2000, 7, stated=0.7, shift=0.4)))
    assert found.remap
    assert Calibration.restore(json.loads(json.dumps(found.state()))) == found


weights = st.lists(st.floats(0.01, 1), min_size=2, max_size=9).map(lambda w: tuple(x / sum(w) for x in w))


@given(weights, st.floats(0.5, 2))
@settings(max_examples=40, deadline=None)
def test_a_density_stays_a_density(remap: tuple[float, ...], temperature: float) -> None:
    density, _ = sample(20, 8)
    untouched = density.clone()
    after = Calibration(temperature, remap)(density, GRID)
    assert bool((after >= 0).all())
    assert torch.allclose(GRID.integral(after), torch.ones(20), atol=1e-4)
    assert torch.equal(density, untouched)


def test_equal_weights_are_the_identity() -> None:
    density, _ = sample(20, 9)
    assert torch.allclose(Calibration(1.0, (1 / 9,) * 9)(density, GRID), density, atol=1e-3)


def _on_grid(rows: tuple[torch.Tensor, np.ndarray]) -> tuple[torch.Tensor, Grid, np.ndarray]:
    return rows[0], GRID, rows[1]
