"""What calibration does to a density: it stays one, whatever the power and the weights, and it comes back from JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from zmill.pdf.calibration import Calibration, Local, features
from zmill.pdf.calibration_fit import POWERS
from zmill.pdf.grid import Grid
from zmill.pdf.values import cdf_at

GRID = Grid(0.0, 3.0, 301)
LOCAL = Local(((0.5, 0.0, -0.2), (0.0, 1.5, 0.3)), (1.0, -2.5), (0.5, 0.3))


def gaussians(n: int, seed: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Densities with their means and widths."""
    rng = np.random.default_rng(seed)
    mean, sigma = rng.uniform(0.7, 2.2, n), rng.uniform(0.04, 0.1, n)
    density = norm.pdf(GRID.z, mean[:, None], sigma[:, None])
    return GRID.normalize(torch.as_tensor(density, dtype=torch.float32)), mean, sigma


weights = st.lists(st.floats(0.01, 1), min_size=3, max_size=9).map(lambda w: tuple(x / sum(w) for x in w))


@given(weights, st.sampled_from(POWERS), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_density_stays_a_density(remap: tuple[float, ...], power: float, by_row: bool) -> None:
    density, _, _ = gaussians(20, 8)
    untouched = density.clone()
    local = Local(((0.7,) * len(remap),) * 2, (1.0, -2.5), (0.5, 0.3)) if by_row else None
    after = Calibration(power, remap, local)(density, GRID)
    assert bool((after >= 0).all())
    assert torch.allclose(GRID.integral(after), torch.ones(20), atol=1e-4)
    assert torch.equal(density, untouched)


@pytest.mark.parametrize("power", POWERS)
def test_a_power_is_that_power(power: float) -> None:
    density, _, _ = gaussians(50, 1)
    exact = GRID.normalize(density.double() ** power)
    assert torch.allclose(Calibration(power)(density, GRID).double(), exact, rtol=1e-4, atol=1e-6)


def test_the_identity_gives_back_what_it_is_given() -> None:
    density, _, _ = gaussians(20, 9)
    assert Calibration()(density, GRID) is density
    assert torch.allclose(Calibration(1.0, (1 / 7,) * 7)(density, GRID), density, atol=1e-3)


def test_a_remap_makes_the_pit_that_it_was_made_for_uniform() -> None:
    density, mean, sigma = gaussians(4000, 2)
    z = norm.ppf(np.random.default_rng(3).beta(3, 2, 4000), mean, sigma)
    # Beta(3, 2) is one Bernstein polynomial of degree 3.
    after = Calibration(1.0, (0.0, 0.0, 1.0, 0.0))(density, GRID)
    pit = [cdf_at(f, GRID.cdf(f), GRID, torch.as_tensor(z, dtype=torch.float32)).numpy() for f in (density, after)]
    assert kstest(pit[0], "uniform").statistic > 0.15
    assert kstest(pit[1], "uniform").statistic < 0.03


def test_weights_that_depend_on_the_row_are_those_of_its_features() -> None:
    density, _, _ = gaussians(30, 4)
    together = Calibration(0.75, (0.2, 0.5, 0.3), LOCAL)(density, GRID)
    x = (features(density, GRID) - torch.tensor(LOCAL.center)) / torch.tensor(LOCAL.spread)
    logits = torch.tensor([0.2, 0.5, 0.3]).log() + x.clamp(-2.5, 2.5) @ torch.tensor(LOCAL.slopes)
    for row, own in enumerate(logits.softmax(1)):
        alone = Calibration(0.75, tuple(own.tolist()))(density[row : row + 1], GRID)
        assert torch.allclose(together[row], alone[0], rtol=1e-3, atol=1e-4), row
    assert logits.softmax(1).std(0).min() > 0.05


def test_an_empty_density_becomes_flat() -> None:
    after = Calibration(0.5, (0.2, 0.5, 0.3))(torch.zeros(2, 301), GRID)
    assert torch.allclose(after, torch.full((2, 301), 1 / 3), atol=1e-6)


@pytest.mark.parametrize(
    "found", [Calibration(), Calibration(0.5, (0.2, 0.5, 0.3)), Calibration(0.5, (0.2, 0.5, 0.3), LOCAL)]
)
def test_the_state_is_json(found: Calibration) -> None:
    assert Calibration.restore(json.loads(json.dumps(found.state()))) == found
