"""Point estimates against closed forms and against brute-force integration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from zmill.pdf import points
from zmill.pdf.grid import Grid
from zmill.pdf.values import cdf_at, density_at

GRID = Grid(0.0, 3.0, 301)


def gaussians(mean: np.ndarray, sigma: np.ndarray, grid: Grid = GRID) -> torch.Tensor:
    """Normalised Gaussian densities, float32."""
    density = norm.pdf(grid.z[None], mean[:, None], sigma[:, None])
    return grid.normalize(torch.as_tensor(density, dtype=torch.float32))


def test_a_gaussian_has_the_estimates_of_a_gaussian() -> None:
    rng = np.random.default_rng(1)
    mean, sigma = rng.uniform(0.6, 2.2, 500), rng.uniform(0.03, 0.12, 500)
    found = points.summarize(gaussians(mean, sigma), GRID)
    assert list(found) == list(points.COLUMNS)
    assert all(value.dtype == torch.float32 and value.shape == (500,) for value in found.values())
    for name in ("z_mode", "z_best", "z_mean", "z_median"):
        # The loss of the best is a function of ln(1 + z), which is not quite straight over the width of a peak.
        assert np.abs(found[name].numpy() - mean).max() < (3e-3 if name == "z_best" else 1e-4), name
    # A density that is linear between points is wider than the curve it samples: the variance grows by step² / 6.
    assert np.allclose(found["z_std"].numpy(), np.sqrt(sigma**2 + GRID.step**2 / 6), rtol=2e-3)
    for name, level in points.PERCENTILES.items():
        assert np.abs(found[name].numpy() - norm.ppf(level, mean, sigma)).max() < 1.5e-3, name
    width = 0.1 * (1 + mean)
    assert np.abs(found["odds"].numpy() - (norm.cdf(width / sigma) - norm.cdf(-width / sigma))).max() < 3e-3


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_best_has_the_least_expected_loss_of_all_redshifts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centers, sigmas = rng.uniform(0.1, 2.9, (3, 10)), rng.lognormal(-3, 0.5, (3, 10))
    shares = rng.dirichlet([1, 1, 1], 10)
    density = sum(
        gaussians(*pair).double() * torch.tensor(s)[:, None] for *pair, s in zip(centers, sigmas, shares.T, strict=True)
    )
    density = GRID.normalize(density)
    found = points.best(density, GRID)
    z = torch.linspace(0, 3, 1501, dtype=torch.float64)
    fine = torch.stack([density_at(density, GRID, one.expand(10)) for one in z], 1)

    def loss(estimate: torch.Tensor) -> torch.Tensor:
        distance = (torch.log1p(estimate)[:, None] - torch.log1p(z)).abs()
        return ((1 - torch.exp(-distance / points.BEST_WIDTH)).square() * fine).sum(1) / fine.sum(1)

    least = torch.stack([loss(one.expand(10)) for one in z[::3]], 1).min(1).values
    assert bool((loss(found) <= least + 1e-4).all())


def test_the_best_is_in_one_of_two_peaks_and_the_mean_of_one() -> None:
    narrow, broad = gaussians(np.array([0.5]), np.array([0.03])), gaussians(np.array([2.0]), np.array([0.3]))
    found = points.summarize(GRID.normalize(0.55 * narrow + 0.45 * broad), GRID)
    assert found["z_best"].item() == pytest.approx(0.5, abs=0.02)
    assert found["z_mean"].item() > 1.1
    leaning = torch.tensor(np.exp(-np.abs(GRID.z - 1) / np.where(GRID.z < 1, 0.01, 0.04)), dtype=torch.float32)[None]
    found = points.summarize(GRID.normalize(leaning), GRID)
    assert found["z_best"].item() == pytest.approx(found["z_mean"].item(), abs=0.004)
    assert found["z_mode"].item() < 1.005 < found["z_mean"].item() - 0.02


density_rows = arrays(np.float32, (4, 21), elements=st.floats(0, 1000, width=32).map(lambda x: x if x > 1e-3 else 0.0))


@given(density_rows)
@settings(max_examples=100, deadline=None)
def test_quantiles_invert_the_cumulative_distribution(rows: np.ndarray) -> None:
    grid = Grid(0.1, 2.1, 21)
    density = grid.normalize(torch.as_tensor(rows, dtype=torch.float64))
    cdf = grid.cdf(density)
    levels = torch.linspace(0.01, 0.99, 33, dtype=torch.float64)
    z = points.quantile(density, cdf, grid, levels)
    assert bool((z.diff(dim=1) >= 0).all())
    for number, level in enumerate(levels):
        assert torch.allclose(cdf_at(density, cdf, grid, z[:, number]), level.expand(4), atol=1e-9)


def test_levels_of_each_row_and_what_is_beyond_them() -> None:
    density = gaussians(np.full(3, 1.5), np.full(3, 0.1))
    levels = torch.tensor([[0.5, 0.16], [0.84, -0.5], [1.5, 0.0]])
    found = points.quantile(density, GRID.cdf(density), GRID, levels).numpy()
    assert np.allclose(found, [[1.5, 1.4006], [1.5994, 0.0], [3.0, 0.0]], atol=2e-3)
    columns, z = points.summarize_with(density, GRID, points.LEVELS, levels)
    assert np.array_equal(z[:, len(points.LEVELS) :].numpy(), found)
    alone = points.summarize(density, GRID)
    assert all(torch.equal(columns[name], alone[name]) for name in points.COLUMNS)


@given(density_rows)
@settings(max_examples=20, deadline=None)
def test_moments_are_those_of_the_piecewise_linear_density(rows: np.ndarray) -> None:
    grid = Grid(0.1, 2.1, 21)
    density = grid.normalize(torch.as_tensor(rows, dtype=torch.float64))
    z = torch.linspace(0.1, 2.1, 20 * 30 + 1, dtype=torch.float64)
    fine = torch.stack([density_at(density, grid, value.expand(4)) for value in z], dim=1)
    mean = torch.trapezoid(fine * z, z, dim=1)
    std = (torch.trapezoid(fine * z**2, z, dim=1) - mean**2).sqrt()
    found = points.moments(density, grid)
    assert torch.allclose(found[0], mean, atol=1e-3)
    assert torch.allclose(found[1], std, atol=1e-3)


@pytest.mark.parametrize("peak", [0, 20])
def test_a_density_that_peaks_at_the_edge_has_its_mode_there(peak: int) -> None:
    grid = Grid(0.0, 2.0, 21)
    density = grid.normalize(torch.exp(-((torch.arange(21.0) - peak) ** 2) / 4)[None])
    assert points.mode(density, grid).item() == pytest.approx(grid.z[peak])


def test_an_empty_density_becomes_flat_and_a_spike_stays_finite() -> None:
    spike = torch.zeros(2, 301)
    spike[1, 150] = 1
    found = points.summarize(GRID.normalize(spike), GRID)
    assert all(bool(torch.isfinite(value).all()) for value in found.values())
    assert found["z_median"][0].item() == pytest.approx(1.5, abs=1e-5)
    assert found["z_median"][1].item() == pytest.approx(1.5, abs=1e-5)
    assert found["odds"][1].item() == pytest.approx(1.0)


def test_narrow_densities_keep_their_width_in_single_precision() -> None:
    mean = np.linspace(0.1, 2.9, 200)
    density = gaussians(mean, np.full(200, 0.01))
    exact = points.moments(density.double(), GRID)[1]
    assert torch.allclose(points.moments(density, GRID)[1].double(), exact, rtol=0.01)


def test_no_rows_give_no_estimates() -> None:
    assert all(len(value) == 0 for value in points.summarize(torch.zeros(0, 301), GRID).values())


def test_rows_do_not_depend_on_other_rows() -> None:
    rng = np.random.default_rng(2)
    density = gaussians(rng.uniform(0, 3, 5000), rng.uniform(0.01, 0.5, 5000))
    together = points.summarize(density, GRID)
    alone = points.summarize(density[4321:4322], GRID)
    for name in points.COLUMNS:
        assert torch.allclose(together[name][4321], alone[name][0], rtol=1e-5, atol=1e-6), name
