"""The compiled pass gives what calibration and point estimates give, which define it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from zmill.kernels.fused import Fused
from zmill.pdf import compact, points
from zmill.pdf.calibration import Calibration, Local
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
@pytest.mark.parametrize("packed", [False, True], ids=["points", "compact"])
@pytest.mark.parametrize("rows", [1, 16, 331])
def test_it_is_the_calibrated_density_summarized(calibration: Calibration, packed: bool, rows: int) -> None:
    grid = Grid(0.0, 3.0, 301)
    density, own = densities(rows, grid), own_levels(rows)
    found, codes, lost = Fused(calibration, grid, packed, 2)(density.log(), own)
    levels = compact.WITH_POINTS if packed else points.LEVELS
    expected, z = points.summarize_with(calibration(density.double(), grid), grid, levels, own.double())
    assert found.shape == (len(points.COLUMNS) + 2, rows)
    for column, name in zip(found, points.COLUMNS, strict=False):
        torch.testing.assert_close(
            column.double(), expected[name], rtol=0, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}"
        )
    torch.testing.assert_close(found[-2:].T.double(), z[:, -2:], rtol=0, atol=2e-3)
    assert not lost.any()
    assert (codes is not None) == packed
    if codes is not None:
        stored = compact.unpack(codes, grid).double()
        torch.testing.assert_close(stored, z[:, : len(compact.LEVELS)], rtol=0, atol=2e-3)


@pytest.mark.parametrize("width", [0.002, 0.03, 0.7])
def test_odds_of_any_width(width: float) -> None:
    grid = Grid(0.0, 3.0, 301)
    density = densities(331, grid)
    found, _, _ = Fused(Calibration(), grid, False, 0, width)(density.log(), torch.zeros(331, 0))
    expected, _ = points.summarize_with(density.double(), grid, points.LEVELS, width=width)
    column = found[points.COLUMNS.index("odds")].double()
    torch.testing.assert_close(column, expected["odds"], rtol=0, atol=2e-3)


@pytest.mark.parametrize("size", [3, 8, 9, 15, 16, 17, 64, 65])
def test_grids_of_any_size(size: int) -> None:
    grid = Grid(0.5, 2.0, size)
    density = grid.normalize(torch.tensor(np.random.default_rng(2).uniform(0.1, 1, (40, size)), dtype=torch.float32))
    calibration = CALIBRATIONS["by row"]
    found, _, _ = Fused(calibration, grid, False, 2)(density.log(), own_levels(40))
    expected, z = points.summarize_with(calibration(density, grid), grid, points.LEVELS, own_levels(40))
    for column, name in zip(found, points.COLUMNS, strict=False):
        torch.testing.assert_close(column, expected[name], rtol=0, atol=1e-4)
    torch.testing.assert_close(found[-2:].T, z[:, -2:], rtol=0, atol=1e-4)


def test_no_row_has_an_influence_on_another() -> None:
    grid = Grid(0.0, 3.0, 301)
    logs, own = densities(50, grid).log(), own_levels(50)
    fused = Fused(CALIBRATIONS["by row"], grid, True, 2)
    together, alone = fused(logs, own), fused(logs[33:34], own[33:34])
    assert torch.equal(together[0][:, 33:34], alone[0])
    assert torch.equal(together[1][33:34], alone[1])


def test_scale_and_spacing_of_the_rows_do_not_matter() -> None:
    grid = Grid(0.0, 3.0, 301)
    logs, own = densities(50, grid).log(), own_levels(50)
    fused = Fused(CALIBRATIONS["by row"], grid, False, 2)
    wide = torch.full((50, 304), torch.nan)
    wide[:, :301] = logs + 20
    torch.testing.assert_close(fused(wide[:, :301], own)[0], fused(logs, own)[0], rtol=0, atol=1e-4)


def test_rows_without_a_density_are_flagged_and_described_as_flat() -> None:
    grid = Grid(0.0, 3.0, 301)
    logs = densities(40, grid).log()
    sound = logs.clone()
    logs[3, 17], logs[8, 300], logs[20], logs[33, 5] = torch.nan, torch.inf, -torch.inf, -torch.inf
    fused = Fused(CALIBRATIONS["by row"], grid, False, 2)
    found, _, lost = fused(logs, own_levels(40))
    assert lost.nonzero()[:, 0].tolist() == [3, 8, 20]
    assert bool(found.isfinite().all())
    assert torch.allclose(found[points.COLUMNS.index("z_median"), lost], torch.tensor(1.5))
    assert torch.allclose(found[points.COLUMNS.index("z_std"), lost], torch.tensor(3 / 12**0.5), atol=1e-5)
    kept = ~lost
    kept[33] = False
    assert torch.equal(found[:, kept], fused(sound, own_levels(40))[0][:, kept])


def test_nothing_left_by_the_calibration_is_a_flat_density() -> None:
    grid = Grid(0.0, 3.0, 301)
    logs = torch.full((20, 301), -torch.inf)
    logs[:, 0] = 0.0
    found, _, lost = Fused(Calibration(1.0, (0.0, 1.0, 0.0)), grid, False, 2)(logs, own_levels(20))
    assert bool(found.isfinite().all())
    assert not lost.any()


def test_no_rows() -> None:
    found, codes, lost = Fused(Calibration(), Grid(0.0, 3.0, 301), True, 2)(torch.zeros(0, 301), torch.zeros(0, 2))
    assert found.shape == (len(points.COLUMNS) + 2, 0)
    assert codes is not None and codes.shape == (0, 32)
    assert lost.shape == (0,)


def test_no_levels_of_its_own_and_nothing_beyond_its_arrays_is_touched() -> None:
    grid = Grid(0.0, 3.0, 301)
    logs = densities(40, grid).log()
    found, codes, _ = Fused(CALIBRATIONS["by row"], grid, True, 0)(logs, torch.zeros(40, 0))
    expected = Fused(CALIBRATIONS["by row"], grid, True, 2)(logs, own_levels(40))
    assert found.shape == (len(points.COLUMNS), 40)
    assert torch.equal(found, expected[0][:-2])
    assert codes is not None and expected[1] is not None and torch.equal(codes, expected[1])


@pytest.mark.parametrize(
    ("logs", "own"),
    [
        (torch.zeros(40, 300), torch.zeros(40, 2)),
        (torch.zeros(40, 301), torch.zeros(40, 0)),
        (torch.zeros(40, 301), torch.zeros(39, 2)),
        (torch.zeros(40, 301, dtype=torch.float64), torch.zeros(40, 2)),
    ],
)
def test_other_shapes_and_types_are_refused(logs: Tensor, own: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected torch\.float32 of shape"):
        Fused(Calibration(), Grid(0.0, 3.0, 301), True, 2)(logs, own)
