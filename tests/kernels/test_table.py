"""The table of a two-number family: compiled for a CPU it gives what its definition on tensors gives."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from zmill.kernels.table import Table
from zmill.pdf.grid import Grid

GRID = Grid(0.0, 2.0, 101)
BINS, SHARED = 3, 19


def numbers(loc: Tensor, log_scale: Tensor, bins: Tensor | None) -> Tensor:
    """A mode and more locations than a register holds; then two ends of each bin, or two for all bins."""
    width = log_scale.exp()
    shared = torch.stack([loc + 0.1 * k * width for k in range(SHARED)], 1)
    ends = torch.stack([loc - width * (1 + k // 2) * (-1) ** k for k in range(2 * BINS)], 1)
    if bins is not None:
        ends = ends.reshape(-1, BINS, 2)[torch.arange(len(loc)), bins]
    return torch.cat([shared, ends], 1)


@pytest.fixture(scope="module")
def table() -> Table:
    with ThreadPoolExecutor(1) as pool:
        return Table.build(numbers, GRID, 2, BINS, torch.device("cpu"), pool)


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 1000])
def test_compiled_it_is_the_same(table: Table, rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    loc = 2.4 * torch.rand(rows, generator=generator) - 0.2
    log_scale = torch.linspace(math.log(GRID.step) - 1, 1, rows)
    loc[::17] = torch.nan
    bins = torch.randint(0, BINS, (rows,), generator=generator)
    defined, compiled = table._look_up(loc, log_scale, bins), table._look_up_compiled(loc, log_scale, bins)
    assert compiled[0].shape == (SHARED + 2, rows)
    good = defined[1]
    assert torch.equal(good, compiled[1])
    assert rows < 16 or bool(good.any() and not good.all())
    torch.testing.assert_close(defined[0][:, good], compiled[0][:, good], rtol=0, atol=1e-4)
    found = table(loc, log_scale, bins)
    torch.testing.assert_close(found.T, numbers(loc, log_scale, bins), rtol=0, atol=2e-2, equal_nan=True)
