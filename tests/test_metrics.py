"""Metrics against closed forms, scipy and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from zmill import metrics
from zmill.config import ConfigError
from zmill.pdf.grid import Grid
from zmill.pdf.scores import pdf_scores

GRID = Grid(0.0, 3.0, 601)


def gaussians(mean: np.ndarray, sigma: np.ndarray, grid: Grid = GRID) -> torch.Tensor:
    return grid.normalize(torch.as_tensor(stats.norm.pdf(grid.z, mean[:, None], sigma[:, None])))


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, sigma and a true redshift drawn from each Gaussian."""
    rng = np.random.default_rng(5)
    mean, sigma = rng.uniform(0.8, 2.0, 3000), rng.uniform(0.05, 0.12, 3000)
    return mean, sigma, rng.normal(mean, sigma)


@given(
    arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e3, 1e3)),
    st.lists(st.floats(0, 1), min_size=1, max_size=3),
)
def test_quantiles_with_equal_weights_are_those_of_numpy(values: np.ndarray, levels: list[float]) -> None:
    found = metrics.quantiles(values, tuple(levels), np.full(len(values), 0.5))
    assert found == pytest.approx(np.quantile(values, levels), rel=1e-9, abs=1e-9)


def test_quantiles_of_a_value_that_is_nan_are_nan() -> None:
    for weight in (np.ones(3), np.array([1.0, 2.0, 1.0])):
        assert np.isnan(metrics.quantiles(np.array([1.0, np.nan, 2.0]), (0.1, 0.5), weight)).all()


def test_point_metrics_of_known_errors() -> None:
    z = np.array([0.0, 1.0, 1.0, 3.0, 1.0])
    delta = np.array([0.0, 0.1, -0.1, 0.2, 1.0])
    found = metrics.point_metrics(z + delta * (1 + z), z)
    assert set(found) == set(metrics.POINT_METRICS)
    assert found["bias"] == pytest.approx(0.24)
    assert found["mse"] == pytest.approx((0.04 + 0.04 + 0.64 + 4) / 5)
    assert found["rms"] == pytest.approx(np.sqrt(found["mse"]))
    assert found["mae"] == pytest.approx((0.2 + 0.2 + 0.8 + 2) / 5)
    assert found["r2"] == pytest.approx(1 - found["mse"] / np.var(z))
    assert found["sigma_mad"] == pytest.approx(1.4826 * 0.1)
    assert found["sigma_nmad"] == pytest.approx(1.4826 * 0.1)
    assert found["sigma_iqr"] == pytest.approx(0.2 / 1.349)
    assert (found["eta_005"], found["eta_015"], found["eta_050"]) == pytest.approx((0.8, 0.4, 0.2))
    assert found["eta_5sigma"] == pytest.approx(0.2)
    assert found["outlier_rail"] == pytest.approx(0.2)


def test_a_weight_of_two_is_a_row_given_twice(rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    mean, sigma, z = (array[:400] for array in rows)
    weight = np.where(np.arange(400) % 3 == 0, 2.0, 1.0)
    twice = np.repeat(np.arange(400), weight.astype(int))
    weighted, repeated = metrics.point_metrics(mean, z, weight), metrics.point_metrics(mean[twice], z[twice])
    for name in ("mse", "mae", "r2", "bias", "eta_005"):
        assert weighted[name] == pytest.approx(repeated[name]), name
    for name in ("sigma_mad", "sigma_nmad", "sigma_iqr"):
        assert weighted[name] == pytest.approx(repeated[name], rel=0.02), name
    scores = pdf_scores(gaussians(mean, sigma), GRID, z)
    weighted, repeated = metrics.pdf_metrics(scores, weight), metrics.pdf_metrics(scores[twice])
    for name in ("crps", "cde_loss", "log_score", "pit_ks", "coverage_68"):
        assert weighted[name] == pytest.approx(repeated[name]), name


def test_gaussian_densities_have_the_closed_form_scores(rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    mean, sigma, z = rows
    scores = pdf_scores(gaussians(mean, sigma), GRID, z)
    t = (z - mean) / sigma
    # Gneiting & Raftery 2007, eq. 21 (with the sign of a loss).
    crps = sigma * (t * (2 * stats.norm.cdf(t) - 1) + 2 * stats.norm.pdf(t) - 1 / np.sqrt(np.pi))
    assert np.allclose(scores.crps, crps, atol=2e-4)
    assert np.allclose(scores.pit, stats.norm.cdf(t), atol=2e-3)
    assert np.allclose(scores.log_score, stats.norm.logpdf(z, mean, sigma), atol=0.03)
    cde = 1 / (2 * sigma * np.sqrt(np.pi)) - 2 * stats.norm.pdf(z, mean, sigma)
    assert np.allclose(scores.cde_loss, cde, atol=0.06)
    found = metrics.pdf_metrics(scores)
    assert set(found) == set(metrics.PDF_METRICS)
    for level in metrics.COVERAGES:
        assert found[f"coverage_{level}"] == pytest.approx(level / 100, abs=0.03)
    assert found["pit_ks"] < 1.63 / np.sqrt(3000)


def test_crps_is_the_integral_of_the_squared_difference() -> None:
    grid = Grid(0.2, 1.2, 6)
    rng = np.random.default_rng(2)
    density = grid.normalize(torch.as_tensor(rng.exponential(1, (40, 6))))
    z_spec = np.concatenate([rng.uniform(0.2, 1.2, 36), [0.2, 1.2, 0.0, 1.5]])
    found = pdf_scores(density, grid, z_spec).crps
    fine = np.linspace(0, 1.6, 160_001)
    for row in range(40):
        f = np.interp(fine, grid.z, density[row].numpy(), left=0, right=0)
        cdf = np.concatenate([[0], np.cumsum(0.5 * (f[1:] + f[:-1]) * np.diff(fine))])
        exact = np.trapezoid((cdf - (fine >= z_spec[row])) ** 2, fine)
        assert found[row] == pytest.approx(exact, abs=2e-4)


def test_a_flat_density_scores_as_a_flat_density() -> None:
    grid = Grid(0.0, 2.0, 201)
    z = np.random.default_rng(0).uniform(0, 2, 500)
    scores = pdf_scores(torch.full((500, 201), 0.5), grid, z)
    assert np.allclose(scores.cde_loss, 0.5 - 1.0)
    assert np.allclose(scores.log_score, np.log(0.5))
    assert np.allclose(scores.pit, z / 2)
    assert np.allclose(scores.crps, (z**3 + (2 - z) ** 3) / 12)


def test_the_training_distribution_for_every_row_is_honest_and_useless() -> None:
    """trainZ: uniform PIT, and the CDE loss −∫ n(z)² dz that only the sharpness of n(z) gives."""
    grid = Grid(0.0, 2.0, 401)
    z = np.random.default_rng(1).beta(3, 5, 20_000) * 2
    density = grid.normalize(torch.as_tensor(stats.beta.pdf(grid.z / 2, 3, 5))[None]).expand(len(z), -1)
    found = metrics.pdf_metrics(pdf_scores(density, grid, z))
    assert found["pit_ks"] < 0.012
    assert found["cde_loss"] == pytest.approx(
        -np.trapezoid((stats.beta.pdf(grid.z / 2, 3, 5) / 2) ** 2, grid.z), abs=0.02
    )


def test_pit_statistics_are_those_of_scipy() -> None:
    pit = np.random.default_rng(3).beta(1.3, 0.9, 700)
    found = metrics.pit_statistics(pit, np.ones(700))
    assert found["pit_ks"] == pytest.approx(stats.kstest(pit, "uniform").statistic)
    assert found["pit_cvm"] == pytest.approx(stats.cramervonmises(pit, "uniform").statistic)
    u, i = np.sort(pit.clip(0.5 / 700, 1 - 0.5 / 700)), np.arange(1, 701)
    assert found["pit_ad"] == pytest.approx(-700 - np.mean((2 * i - 1) * (np.log(u) + np.log1p(-u[::-1]))))


def test_pits_at_zero_and_one_stay_finite() -> None:
    found = metrics.pit_statistics(np.array([0.0, 0.0, 1.0, 0.5]), np.ones(4))
    assert all(np.isfinite(value) for value in found.values())


def test_a_redshift_beyond_the_grid_is_a_finite_loss() -> None:
    scores = pdf_scores(gaussians(np.array([1.0]), np.array([0.1])), GRID, np.array([5.0]))
    assert scores.pit[0] == 1
    assert scores.log_score[0] == pytest.approx(np.log(metrics.SMALLEST_DENSITY))
    assert scores.crps[0] == pytest.approx(4.0 - 0.1 / np.sqrt(np.pi), abs=1e-3)


def test_one_row_has_metrics_but_no_r2() -> None:
    found = metrics.point_metrics(np.array([1.1]), np.array([1.0]))
    assert np.isnan(found["r2"])
    assert found["bias"] == pytest.approx(0.05)


def test_redshifts_that_do_not_vary_have_no_r2_and_equal_errors_no_5_sigma() -> None:
    rng = np.random.default_rng(0)
    z = 0.1 + 0.2 + np.zeros(1000)  # its variance is rounding: 3e-33
    found = metrics.point_metrics(z + rng.normal(0, 0.01, 1000), z, rng.uniform(0.5, 2, 1000))
    assert np.isnan(found["r2"]) and np.isfinite(found["eta_5sigma"]) and found["rms"] > 0
    varied = rng.uniform(0.1, 1, 1000)
    found = metrics.point_metrics(varied, varied)
    assert np.isnan(found["eta_5sigma"]) and found["r2"] == 1 and found["sigma_mad"] == 0
    mostly = np.where(np.arange(1000) < 600, varied, 2 * varied)
    assert np.isnan(metrics.point_metrics(mostly, varied)["eta_5sigma"])
    assert np.isnan(metrics.point_metrics(varied + 0.1 * (1 + varied), varied)["eta_5sigma"])


@pytest.mark.parametrize("rows", [0, 5])
def test_without_rows_of_any_weight_every_metric_is_undefined(rows: int) -> None:
    z, w = np.linspace(0.1, 1, rows), np.zeros(rows)
    found = metrics.point_metrics(z, z, w) | metrics.pdf_metrics(metrics.PdfScores(z, z, z, z), w)
    assert tuple(found) == metrics.ALL
    assert all(np.isnan(value) for value in found.values())


@settings(deadline=None)
@given(
    z=arrays(np.float64, 30, elements=st.floats(0, 7)),
    by=st.floats(0, 3),
    weight=arrays(np.float64, 30, elements=st.floats(0, 9)),
)
def test_no_metric_is_ever_out_of_its_range(z: np.ndarray, by: float, weight: np.ndarray) -> None:
    found = metrics.point_metrics(z + by, z, weight)
    for name, value in found.items():
        assert np.isnan(value) or abs(value) < 1e16, name
        if name.startswith(("eta", "outlier")):
            assert np.isnan(value) or -1e-9 <= value <= 1 + 1e-9


def test_every_row_is_in_one_bin() -> None:
    values = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, np.nan])
    counts = np.array(metrics.bins(values, np.array([0.0, 1.0, 2.0]))).sum(0)
    assert counts.tolist() == [1, 1, 1, 1, 1, 0, 0]


def test_blocks_widen_the_interval_that_rows_would_give() -> None:
    rng = np.random.default_rng(4)
    blocks = np.repeat(np.arange(30), 100)
    values = rng.normal(0, 1, 30)[blocks] + rng.normal(0, 0.1, 3000)

    def mean(rows: np.ndarray) -> dict[str, float]:
        return {"mean": float(values[rows].mean())}

    low, high = metrics.bootstrap(mean, blocks, 300, seed=1)["mean"]
    assert (high - low) / 2 == pytest.approx(values.reshape(30, 100).mean(1).std() / np.sqrt(30), rel=0.2)
    alone = metrics.bootstrap(mean, np.arange(3000), 300, seed=1)["mean"]
    assert high - low > 5 * (alone[1] - alone[0])
    assert metrics.bootstrap(mean, blocks, 50, seed=2) == metrics.bootstrap(mean, blocks, 50, seed=2)


def test_few_blocks_give_no_interval() -> None:
    values = np.random.default_rng(5).normal(size=90)

    def mean(rows: np.ndarray) -> dict[str, float]:
        return {"mean": float(values[rows].mean())}

    for count in (1, 4):
        low, high = metrics.bootstrap(mean, np.arange(90) % count, 50, seed=1)["mean"]
        assert np.isnan(low) and np.isnan(high)
    low, high = metrics.bootstrap(mean, np.arange(90) % 5, 50, seed=1)["mean"]
    assert low < high


def test_complete_blocks_are_drawn_in_the_order_of_their_rows() -> None:
    blocks = np.array([7, 3, 3, 9, 7, 7, 1, 4])
    drawn: list[np.ndarray] = []

    def look(rows: np.ndarray) -> dict[str, float]:
        drawn.append(rows)
        return {"rows": float(len(rows))}

    metrics.bootstrap(look, blocks, 40, seed=3)
    members = {tuple(np.flatnonzero(blocks == block)) for block in set(blocks.tolist())}
    rng = np.random.default_rng(3)
    names = np.unique(blocks)
    for rows in drawn:
        wanted = [np.flatnonzero(blocks == names[block]) for block in rng.integers(0, 5, 5)]
        assert {tuple(block) for block in wanted} <= members
        assert np.array_equal(rows, np.concatenate(wanted))


def test_equal_weights_change_no_pit_statistic() -> None:
    pit = np.random.default_rng(8).beta(1.2, 1, 501).round(2)
    weight = np.full(501, 1.0)
    weight[0] += 1e-12  # no longer equal: the weighted way
    assert metrics.pit_statistics(pit, np.full(501, 3.0)) == pytest.approx(metrics.pit_statistics(pit, weight))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crsp", "did you mean 'crps'"),
        ("pit_ks", "not their sharpness"),
        ("coverage_68", "not their sharpness"),
        ("x", "there are"),
    ],
)
def test_a_metric_that_cannot_choose_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        metrics.check_metric(name)


def test_the_better_value_is_the_less_bad_one() -> None:
    assert metrics.badness("crps", 0.03) < metrics.badness("crps", 0.04)
    assert metrics.badness("log_score", 1.0) < metrics.badness("log_score", 0.5)
    assert metrics.badness("bias", -0.01) < metrics.badness("bias", 0.02)
