"""A table of point estimates and quantiles of a location-scale family of densities.

The density of a regression has one shape, shifted by loc and stretched by a scale. To compute it on the grid for every row costs
many times as much as the network. The table is interpolated bilinearly between its nodes. Where interpolation is inaccurate (loc
outside the grid, a scale below a grid step, a mode that jumps or is at the end of the grid), the density itself is computed.

The ends of conformal intervals also depend on the bin of the row; they are tabulated for every bin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import repeat
from operator import add
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from zmill.kernels.simd import BYTE, LANES, Code, Compiled, Shape, Value, a_block_at_least
from zmill.pdf.grid import Grid

LOCS_PER_STEP = 2
LOG_SCALE_STEP = 0.05
CHUNK = 2048

Describe = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Function of loc, log scale and bin, (n,) each, that gives (n, k) numbers of the densities. Column 0 is the mode. The last columns
depend on the bin; without bins (None) they are given for all bins in sequence."""


@dataclass(frozen=True)
class Table:
    """Values at nodes (locs × log scales), and the cells in which they may be interpolated.

    values : (locs · scales, k − own) float32.
    of_bins : (bins · locs · scales, own) float32, the columns that depend on the bin.
    smooth : (locs · scales,) bool, whether the cell above the node may be interpolated.
    """

    describe: Describe
    grid: Grid
    scales: int
    values: Tensor
    of_bins: Tensor
    smooth: Tensor

    @classmethod
    def build(cls, describe: Describe, grid: Grid, own: int, bins: int, device: torch.device, pool: Executor) -> Table:
        """Compute the numbers of all nodes, in the threads of `pool`.

        own : number of columns that depend on the bin; bins : number of bins.
        """
        locs = (grid.size - 1) * LOCS_PER_STEP + 1
        scales = math.floor(math.log((grid.z_max - grid.z_min) / grid.step) / LOG_SCALE_STEP) + 1
        node = torch.arange(locs * scales, device=device)
        loc = grid.z_min + (node // scales) * (grid.step / LOCS_PER_STEP)
        log_scale = math.log(grid.step) + (node % scales) * LOG_SCALE_STEP
        values = torch.cat(list(pool.map(describe, loc.split(CHUNK), log_scale.split(CHUNK), repeat(None))))
        values, of_bins = values[:, : -own * bins].contiguous(), values[:, -own * bins :]
        mode = values[:, 0].reshape(locs, scales)
        corners = torch.stack([mode[:-1, :-1], mode[1:, :-1], mode[:-1, 1:], mode[1:, 1:]])
        smooth = torch.zeros(locs, scales, dtype=torch.bool, device=device)
        low, high = corners.amin(0), corners.amax(0)
        inner = (low > grid.z_min + 1.5 * grid.step) & (high < grid.z_max - 1.5 * grid.step)
        smooth[:-1, :-1] = inner & (high - low < 2 * grid.step)
        of_bins = of_bins.reshape(-1, bins, own).transpose(0, 1).reshape(-1, own)
        return cls(describe, grid, scales, values, of_bins, smooth.flatten())

    def __call__(self, loc: Tensor, log_scale: Tensor, bins: Tensor) -> Tensor:
        """(k, n) numbers of densities of given loc, log scale and bin, (n,) each."""
        look_up = self._look_up_compiled if loc.device.type == "cpu" else self._look_up
        found, smooth = look_up(loc, log_scale, bins)
        rough = torch.nonzero(~smooth)[:, 0]
        if len(rough):
            found[:, rough] = self.describe(loc[rough], log_scale[rough], bins[rough]).T
        return found

    def _look_up(self, loc: Tensor, log_scale: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
        """(k, n) interpolated numbers, and (n,) whether they are accurate."""
        x = (loc - self.grid.z_min) * (LOCS_PER_STEP / self.grid.step)
        y = (log_scale - math.log(self.grid.step)) / LOG_SCALE_STEP
        inside = (x >= 0) & (x < self._last) & (y >= 0) & (y < self.scales - 1)
        # NaN is not inside: it is replaced by 0 here, and its density is computed later
        x, y = (torch.where(inside, value, 0.0) for value in (x, y))
        i, j = x.long(), y.long()
        a, b = x - i, y - j
        node = i * self.scales + j
        nodes = torch.stack([node, node + 1, node + self.scales, node + self.scales + 1], 1)
        weights = torch.stack([(1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b], 1)
        nodes_in_bin = nodes + (bins * len(self.values))[:, None]
        found = torch.cat(
            [
                functional.embedding_bag(rows, values, per_sample_weights=weights, mode="sum")
                for rows, values in ((nodes, self.values), (nodes_in_bin, self.of_bins))
            ],
            1,
        )
        return found.T.contiguous(), inside & self.smooth[node]

    def _look_up_compiled(self, loc: Tensor, log_scale: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
        """The compiled form of `_look_up`, in one pass on a CPU."""
        tables = (*self._padded, self._smooth)
        rows = [a_block_at_least(one.float().numpy()) for one in (loc, log_scale, bins)]
        count = len(rows[0])
        found = np.empty((self.values.shape[1] + self.of_bins.shape[1], count), np.float32)
        smooth = np.empty(count, np.bool_)
        self._compiled(*tables, *rows, found, smooth, count)
        return torch.from_numpy(found)[:, : len(loc)], torch.from_numpy(smooth)[: len(loc)]

    @property
    def _last(self) -> int:
        """Index of the last loc."""
        return len(self.values) // self.scales - 1

    @cached_property
    def _padded(self) -> list[NDArray[np.float32]]:
        """`values` and `of_bins`, padded by one register, because a register is loaded from any node."""
        return [np.append(table.numpy().ravel(), np.zeros(LANES, np.float32)) for table in (self.values, self.of_bins)]

    @cached_property
    def _smooth(self) -> NDArray[np.float32]:
        return self.smooth.float().numpy()

    @cached_property
    def _compiled(self) -> Compiled:
        shared, own = self.values.shape[1], self.of_bins.shape[1]
        shapes: dict[str, Shape] = {
            "values": (self.values.numel() + LANES,),
            "of_bins": (self.of_bins.numel() + LANES,),
            "smooth": (len(self.values),),
            **dict.fromkeys(("loc", "log_scale", "bins"), ("rows",)),
            "found": (shared + own, "rows"),
        }
        arrays: dict[str, tuple[Any, Shape]] = {name: (np.float32, shape) for name, shape in shapes.items()}
        code = Code({**arrays, "accurate": (np.bool_, ("rows",))}, ("rows",))
        zero = code.constant(0)

        def block(row: Value) -> None:
            x = (code.load(code.loc, row) - self.grid.z_min) * (LOCS_PER_STEP / self.grid.step)
            y = (code.load(code.log_scale, row) - math.log(self.grid.step)) * (1 / LOG_SCALE_STEP)
            inside = (x >= 0) & (x < self._last) & (y >= 0) & (y < self.scales - 1)
            x, y = (inside.where(value, zero) for value in (x, y))
            i, j = x.to_int(), y.to_int()
            a, b = x - i.to_float(), y - j.to_float()
            node = i * self.scales + j
            smooth = inside & (code.gather(code.smooth, node) > 0)
            code.store(smooth.where(1, code.lanes() * 0), code.accurate, row, BYTE)
            in_bin = node + code.load(code.bins, row).to_int() * len(self.values)
            weights = [(1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b]
            steps = (0, 1, self.scales, self.scales + 1)
            columns = [(code.values, node, shared), (code.of_bins, in_bin, own)]
            before = 0
            for table, at, width in columns:
                for first in range(0, width, LANES):
                    # Load sixteen adjacent numbers of one node at a time instead of one number of sixteen nodes.
                    rows = []
                    for lane in range(LANES):
                        loc = at.index_of_lane(lane)
                        parts = (
                            code.load(table, (loc + step) * width + first) * weight.of_lane(lane)
                            for step, weight in zip(steps, weights, strict=True)
                        )
                        rows.append(reduce(add, parts))
                    for number, column in enumerate(code.transposed(rows)[: width - first]):
                        code.store(column, code.found, code.rows * (before + first + number) + row)
                before += width

        code.each_block(code.rows, block)
        return code.compiled()
