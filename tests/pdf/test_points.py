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
    for name in ("z_mode", "z_mean", "z_median"):
        assert np.abs(found[name].numpy() - mean).max() < 1e-4, name
    # A density that is linear between points is wider than the curve it samples: the variance grows by step² / 6.
    assert np.allclose(found["z_std"].numpy(), np.sqrt(sigma**2 + GRID.step**2 / 6), rtol=2e-3)
    for name, level in points.PERCENTILES.items():
        assert np.abs(found[name].numpy() - norm.ppf(level, mean, sigma)).max() < 1.5e-3, name
    width = 0.1 * (1 + mean)
    assert np.abs(found["odds"].numpy() - (norm.cdf(width / sigma) - norm.cdf(-width / sigma))).max() < 3e-3


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


def test_rows_do_not_depend_on_the_rows_beside_them() -> None:
    rng = np.random.default_rng(2)
    density = gaussians(rng.uniform(0, 3, 5000), rng.uniform(0.01, 0.5, 5000))
    together = points.summarize(density, GRID)
    alone = points.summarize(density[4321:4322], GRID)
    for name in points.COLUMNS:
        assert torch.allclose(together[name][4321], alone[name][0], rtol=1e-5, atol=1e-6), name
