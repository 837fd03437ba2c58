"""The compiled pass gives what calibration and point estimates give, which define it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from zmill.pdf import compact, points
from zmill.pdf.calibration import Calibration, Local
from zmill.pdf.fused import Fused
from zmill.pdf.grid import Grid

SLOPES = ((0.1, -0.2, 0.1, 0.3, 0.0), (0.1, 0.2, -0.3, 0.1, 0.0))
CALIBRATIONS = {
    "none": Calibration(),
    "power": Calibration(1.375),
    "remap": Calibration(0.875, (0.1, 0.2, 0.2, 0.2, 0.3)),
    "by row": Calibration(0.5, (0.1, 0.3, 0.2, 0.2, 0.2), Local(SLOPES, (1.2, -3.0), (0.5, 0.8))),
    "lower half only": Calibration(1.0, (1.0, 0.0, 0.0)),
}


def densities(rows: int, grid: Grid, seed: int = 0) -> Tensor:
    """Two peaks each, some narrower than a step of the grid or at its ends, on a floor."""
    rng = np.random.default_rng(seed)
    center = rng.uniform(grid.z_min - 0.1, grid.z_max + 0.1, (2, rows, 1))
    width = rng.lognormal(-3.3, 0.9, (2, rows, 1))
    peaks = np.exp(-0.5 * ((grid.z - center) / width) ** 2)
    return grid.normalize(torch.tensor(peaks[0] + 0.3 * peaks[1] + 1e-4, dtype=torch.float32))


def own_levels(rows: int) -> Tensor:
    """Two levels of each row, some beyond 0 and 1."""
    return torch.tensor(np.random.default_rng(1).uniform(-0.1, 1.1, (rows, 2)), dtype=torch.float32)


@pytest.mark.parametrize("calibration", CALIBRATIONS.values(), ids=CALIBRATIONS)
@pytest.mark.parametrize("levels", [points.LEVELS, compact.WITH_POINTS], ids=["points", "compact"])
@pytest.mark.parametrize("rows", [1, 16, 331])
def test_it_is_the_calibrated_density_summarized(
    calibration: Calibration, levels: tuple[float, ...], rows: int
) -> None:
    grid = Grid(0.0, 3.0, 301)
    density, own = densities(rows, grid), own_levels(rows)
    found, z = Fused(calibration, grid, levels)(density, own)
    expected, expected_z = points.summarize_with(calibration(density.double(), grid), grid, levels, own.double())
    assert z.shape == (rows, len(levels) + 2)
    for column, name in zip(found, points.COLUMNS, strict=True):
        torch.testing.assert_close(
            column.double(), expected[name], rtol=0, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}"
        )
    torch.testing.assert_close(z.double(), expected_z, rtol=0, atol=2e-3)


@pytest.mark.parametrize("size", [3, 8, 9, 17, 64, 65])
def test_grids_of_any_size(size: int) -> None:
    grid = Grid(0.5, 2.0, size)
    density = grid.normalize(torch.tensor(np.random.default_rng(2).uniform(0.1, 1, (40, size)), dtype=torch.float32))
    calibration = CALIBRATIONS["by row"]
    found, z = Fused(calibration, grid, points.LEVELS)(density, own_levels(40))
    expected, expected_z = points.summarize_with(calibration(density, grid), grid, points.LEVELS, own_levels(40))
    for column, name in zip(found, points.COLUMNS, strict=True):
        torch.testing.assert_close(column, expected[name], rtol=0, atol=1e-4)
    torch.testing.assert_close(z, expected_z, rtol=0, atol=1e-4)


def test_no_row_has_an_influence_on_another() -> None:
    grid = Grid(0.0, 3.0, 301)
    density, own = densities(50, grid), own_levels(50)
    fused = Fused(CALIBRATIONS["by row"], grid, points.LEVELS)
    together, alone = fused(density, own), fused(density[33:34], own[33:34])
    assert torch.equal(together[0][:, 33:34], alone[0])
    assert torch.equal(together[1][33:34], alone[1])


def test_nothing_left_by_the_calibration_is_a_flat_density() -> None:
    grid = Grid(0.0, 3.0, 301)
    density = torch.zeros(3, 301)
    found, _ = Fused(Calibration(), grid, points.LEVELS)(density, own_levels(3))
    named = dict(zip(points.COLUMNS, found, strict=True))
    assert torch.allclose(named["z_median"], torch.full((3,), 1.5))
    assert torch.allclose(named["z_std"], torch.full((3,), 3 / 12**0.5), atol=1e-5)


def test_no_rows() -> None:
    found, z = Fused(Calibration(), Grid(0.0, 3.0, 301), points.LEVELS)(torch.zeros(0, 301), torch.zeros(0, 2))
    assert found.shape == (9, 0)
    assert z.shape == (0, 7)
