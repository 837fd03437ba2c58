"""Calibration repairs densities that are wrong, leaves alone those that are right, and learns from its own rows only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm, t

from zmill import metrics
from zmill.pdf import calibration_fit
from zmill.pdf.calibration import Calibration
from zmill.pdf.grid import Grid
from zmill.pdf.scores import pdf_scores
from zmill.pdf.values import cdf_at

GRID = Grid(0.0, 3.0, 301)


def sample(n: int, seed: int, stated: float = 1.0, shift: float = 0.0) -> tuple[torch.Tensor, np.ndarray]:
    """Densities whose stated width is `stated` times the true one, off by `shift` sigma; true redshifts."""
    rng = np.random.default_rng(seed)
    mean, sigma = rng.uniform(0.7, 2.2, n), rng.uniform(0.04, 0.1, n)
    return gaussians(mean + shift * sigma, stated * sigma), rng.normal(mean, sigma)


def gaussians(mean: np.ndarray, sigma: np.ndarray) -> torch.Tensor:
    return GRID.normalize(torch.as_tensor(norm.pdf(GRID.z, mean[:, None], sigma[:, None]), dtype=torch.float32))


def pit(density: torch.Tensor, z: np.ndarray) -> np.ndarray:
    return cdf_at(density, GRID.cdf(density), GRID, torch.as_tensor(z, dtype=torch.float32)).numpy()


def scores(density: torch.Tensor, z: np.ndarray) -> dict[str, float]:
    return metrics.pdf_metrics(pdf_scores(density, GRID, z))


def fitted(rows: tuple[torch.Tensor, np.ndarray]) -> Calibration:
    return calibration_fit.fit(rows[0].__getitem__, GRID, rows[1])[0]


@pytest.mark.parametrize(("stated", "shift"), [(0.6, 0.0), (1.8, 0.0), (1.0, 0.5), (0.7, 0.3)])
def test_wrong_densities_are_repaired_on_rows_not_seen(stated: float, shift: float) -> None:
    found = fitted(sample(3000, 1, stated, shift))
    density, z = sample(3000, 2, stated, shift)
    after = found(density, GRID)
    assert kstest(pit(density, z), "uniform").statistic > 0.1
    assert kstest(pit(after, z), "uniform").statistic < 0.04
    assert scores(after, z)["log_score"] > scores(density, z)["log_score"] + 0.03
    assert scores(after, z)["crps"] < scores(density, z)["crps"]


def test_few_rows_find_densities_a_little_too_wide_and_leave_right_ones_alone() -> None:
    assert all(fitted(sample(800, seed, stated=1.15)).remap for seed in range(6))
    assert not any(fitted(sample(800, seed)).remap for seed in range(6))


def test_wings_that_hold_the_outliers_are_found_where_densities_have_none() -> None:
    """Truth with Student's t of two degrees of freedom, densities Gaussian: neither step alone can say it."""
    rng = np.random.default_rng(5)
    rows = []
    for _ in range(2):
        mean, sigma = rng.uniform(0.8, 2.2, 3000), rng.uniform(0.04, 0.08, 3000)
        rows.append((gaussians(mean, 1.5 * sigma), np.clip(mean + sigma * t.rvs(2, size=3000, random_state=rng), 0, 3)))
    found = fitted(rows[0])
    assert found.power < 1 and found.remap
    density, z = rows[1]
    before, after = scores(density, z), scores(found(density, GRID), z)
    assert after["log_score"] > before["log_score"] + 0.1
    assert after["crps"] < before["crps"]


def by_redshift(n: int, seed: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Densities too wide at low and too narrow at high redshift, right on average; redshifts; means of the densities."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(0.7, 2.2, n)
    return gaussians(mean, np.full(n, 0.06)), rng.normal(mean, 0.06 * np.exp(0.7 * (mean - 1.45))), mean


def test_rows_of_every_kind_are_repaired_where_the_fault_depends_on_the_row() -> None:
    found = fitted(by_redshift(3000, 6)[:2])
    assert found.local is not None
    density, z, mean = by_redshift(6000, 7)
    after = found(density, GRID)
    for part in (mean < 1.1, mean > 1.8):
        rows = torch.as_tensor(np.flatnonzero(part))
        before = kstest(pit(density[rows], z[part]), "uniform").statistic
        assert kstest(pit(after[rows], z[part]), "uniform").statistic < 0.6 * before
    assert scores(after, z)["log_score"] > scores(density, z)["log_score"] + 0.02


def test_densities_that_are_all_alike_have_no_kinds() -> None:
    rng = np.random.default_rng(8)
    density = gaussians(np.full(2000, 1.5), np.full(2000, 0.3))
    assert fitted((density, rng.normal(1.2, 0.1, 2000))).local is None


def test_right_densities_are_left_alone() -> None:
    assert fitted(sample(3000, 3)) == Calibration()


def test_few_rows_decide_nothing() -> None:
    assert fitted(sample(calibration_fit.MIN_ROWS - 1, 3, stated=0.5)) == Calibration()


def test_rows_beyond_the_grid_do_not_count() -> None:
    density, z = sample(500, 4, stated=0.6)
    beyond = np.concatenate([z, np.full(500, 7.0)])
    found, pits = calibration_fit.fit(torch.cat([density, density]).__getitem__, GRID, beyond)
    assert found == calibration_fit.fit(density.__getitem__, GRID, z)[0]
    assert (pits[500:] == 1).all()


def test_weights_count() -> None:
    one, two = sample(2000, 5, stated=0.6), sample(2000, 6, stated=1.6)
    density, z = torch.cat([one[0], two[0]]), np.concatenate([one[1], two[1]])
    narrow, _ = calibration_fit.fit(density.__getitem__, GRID, z, np.repeat([1.0, 1e-6], 2000))
    wide, _ = calibration_fit.fit(density.__getitem__, GRID, z, np.repeat([1e-6, 1.0], 2000))
    assert kstest(pit(narrow(one[0], GRID), one[1]), "uniform").statistic < 0.04
    assert kstest(pit(wide(two[0], GRID), two[1]), "uniform").statistic < 0.04


def test_the_pit_of_a_row_owes_nothing_to_its_own_redshift() -> None:
    """A leak would show as a change of rows that are judged together with the one that is changed."""
    density, z = sample(1000, 8, stated=0.6)
    found, before = calibration_fit.fit(density.__getitem__, GRID, z)
    assert found != Calibration()
    moved = z.copy()
    moved[: calibration_fit.FOLDS * 40 : calibration_fit.FOLDS] += 0.3
    _, after = calibration_fit.fit(density.__getitem__, GRID, moved)
    fold = np.arange(1000) % calibration_fit.FOLDS == 0
    kept = fold & (moved == z)
    assert np.array_equal(before[kept], after[kept])
    assert (
        np.isclose(before[~fold], after[~fold], atol=1e-6).mean() < 0.01
    )  # a symmetric remap leaves the middle where it is


def test_more_rows_than_are_fitted_on_get_their_pit_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_fit, "MAX_ROWS", 700)
    monkeypatch.setattr(calibration_fit, "CHUNK", 300)
    density, z = sample(2000, 9, stated=0.6)
    requested: list[np.ndarray] = []

    def densities(rows: np.ndarray) -> torch.Tensor:
        requested.append(rows)
        return density[rows]

    found, pits = calibration_fit.fit(densities, GRID, z)
    assert found != Calibration()
    assert max(map(len, requested)) <= 700
    assert np.array_equal(np.sort(np.concatenate(requested)), np.arange(2000))
    assert kstest(pits, "uniform").statistic < 0.05
    assert np.allclose(pits[1::3], pit(found(density, GRID), z)[1::3], atol=1e-6)
