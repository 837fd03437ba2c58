"""What 64 bytes per row cost: bounds on the loss against the full grid; columns give the same densities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from zmill import metrics
from zmill.pdf import arrow, compact, points
from zmill.pdf.grid import Grid
from zmill.pdf.scores import pdf_scores
from zmill.pdf.values import cdf_at

GRID = Grid(0.0, 3.0, 301)


def mixtures(n: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Densities like those of a survey (a narrow peak, one in four with a second one) and a redshift drawn from each."""
    rng = np.random.default_rng(seed)
    mean = np.stack([rng.uniform(0.2, 2.0, n), rng.uniform(0.2, 2.8, n)], axis=1)
    sigma = np.stack([rng.uniform(0.015, 0.08, n), rng.uniform(0.05, 0.3, n)], axis=1) * (1 + mean)
    share = np.where(rng.random(n) < 0.25, rng.uniform(0, 0.5, n), 0.0)
    pdf = (1 - share)[:, None] * norm.pdf(GRID.z, mean[:, :1], sigma[:, :1])
    pdf += share[:, None] * norm.pdf(GRID.z, mean[:, 1:], sigma[:, 1:])
    density = GRID.normalize(torch.as_tensor(pdf, dtype=torch.float32))
    level = torch.as_tensor(rng.uniform(0, 1, (n, 1)))
    cdf = GRID.cdf(density.double())
    cell = torch.searchsorted(cdf, level).clamp(1, GRID.size - 1)
    z = np.take_along_axis(np.broadcast_to(GRID.z, (n, GRID.size)), cell.numpy(), axis=1)[:, 0]
    return density, z - rng.uniform(0, GRID.step, n)


def test_levels_are_symmetric_ascending_and_hold_64_bytes() -> None:
    levels = np.array(compact.LEVELS)
    assert len(levels) == 32
    assert (np.diff(levels) > 0).all()
    assert np.allclose(levels + levels[::-1], 1)
    density, _ = mixtures(10, 0)
    codes = compact.encode(density, GRID)
    assert codes.dtype == torch.uint16
    assert codes[0].numpy().nbytes == 64


def test_the_loss_is_small() -> None:
    density, z = mixtures(4000, 1)
    back = compact.decode(compact.encode(density, GRID), GRID)
    full, short = pdf_scores(density, GRID, z), pdf_scores(back, GRID, z)
    a, b = metrics.pdf_metrics(full), metrics.pdf_metrics(short)
    assert b["crps"] == pytest.approx(a["crps"], rel=0.003)
    assert b["cde_loss"] == pytest.approx(a["cde_loss"], rel=0.01)
    assert b["log_score"] == pytest.approx(a["log_score"], abs=0.03)
    assert np.abs(short.pit - full.pit).max() < 0.04
    assert np.abs(short.pit - full.pit).mean() < 0.002
    before, after = points.summarize(density, GRID), points.summarize(back, GRID)
    assert (before["z_mean"] - after["z_mean"]).abs().mean() < 0.001
    assert (before["z_mean"] - after["z_mean"]).abs().max() < 0.06
    assert ((after["z_std"] / before["z_std"]) - 1).abs().mean() < 0.02
    assert (before["z_median"] - after["z_median"]).abs().mean() < 0.001


@given(arrays(np.float32, (3, 31), elements=st.floats(0, 100, width=32)))
@settings(max_examples=60, deadline=None)
def test_any_density_comes_back_as_a_density(rows: np.ndarray) -> None:
    grid = Grid(0.0, 1.5, 31)
    density = grid.normalize(torch.as_tensor(rows))
    back = compact.decode(compact.encode(density, grid), grid)
    assert bool((back >= 0).all())
    assert torch.allclose(grid.integral(back), torch.ones(3), atol=1e-5)
    difference = grid.cdf(back.double()) - grid.cdf(density.double())
    assert difference.abs().max() < 0.15


@pytest.mark.parametrize("kind", ["compact", "full"])
def test_a_file_gives_back_the_densities(tmp_path: Path, kind: arrow.Kind) -> None:
    density, _ = mixtures(200, 3)
    values = compact.encode(density, GRID) if kind == "compact" else density
    schema = pa.schema([pa.field("object_id", pa.int64()), arrow.field(kind, GRID)], arrow.metadata(kind, GRID))
    pq.write_table(pa.table([pa.array(np.arange(200)), arrow.column(kind, values)], schema), tmp_path / "a.parquet")
    back, grid = arrow.densities(pq.read_table(tmp_path / "a.parquet"))
    assert grid == GRID
    assert (GRID.cdf(back) - GRID.cdf(density)).abs().max() < (0.04 if kind == "compact" else 0.002)


def test_the_density_reaches_each_level_at_its_quantile() -> None:
    density, _ = mixtures(500, 5)
    codes = compact.encode(density, GRID)
    back, z = compact.decode(codes, GRID).double(), compact.unpack(codes, GRID).double()
    cdf = GRID.cdf(back)
    for number, level in enumerate(compact.LEVELS):
        assert (cdf_at(back, cdf, GRID, z[:, number]) - level).abs().max() < 0.01, level


@pytest.mark.parametrize("code", [0, 1, 30_000, 65_534, 65_535])
@pytest.mark.parametrize("grid", [GRID, Grid(0.0, 1.6, 161), Grid(0.3, 0.7, 11)], ids=str)
def test_a_density_of_no_width_is_where_it_is(code: int, grid: Grid) -> None:
    density = compact.decode(torch.full((1, 32), code, dtype=torch.uint16), grid)
    z = grid.z_min + code / 65_535 * (grid.z_max - grid.z_min)
    assert float(grid.integral(density)) == pytest.approx(1, abs=1e-5)
    assert abs(float(points.summarize(density, grid)["z_median"]) - z) < grid.step
    assert float(points.summarize(density, grid)["z_std"]) < grid.step


def test_a_table_without_pdfs_is_refused() -> None:
    with pytest.raises(arrow.PdfError, match="expected a column pdf"):
        arrow.densities(pa.table({"object_id": [1]}))


def test_no_rows() -> None:
    codes = compact.encode(torch.zeros(0, 301), GRID)
    assert codes.shape == (0, 32)
    assert compact.decode(codes, GRID).shape == (0, 301)
