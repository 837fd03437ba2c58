"""Point estimates and quantiles of a two-number family of densities, tabulated once and then looked up.

A regression's density is one shape, put at a place and stretched to a width. Building it on the grid for every row, to take
nine numbers from it, costs many times what the network costs. Between the nodes of a table the numbers are bilinear;
where that would not do (places outside the grid, widths below a grid step, a mode that jumps or
meets the end of the grid) the density itself is asked.

Some numbers depend on a third thing, the bin that a row is in (the ends of its intervals): these are kept for every bin.
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

PLACES_PER_STEP = 2
LOG_WIDTH_STEP = 0.05
CHUNK = 2048

Describe = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(n, k) numbers that describe the densities at places, log widths and bins (n,). Column 0 is the mode; those that depend on
the bin are the last, and without bins they are there for all bins one after the other."""


@dataclass(frozen=True)
class Table:
    """Values at nodes (places × log widths), and the cells in which they may be interpolated.

    values : (places · widths, k − own) float32; of_bins : (bins · places · widths, own) float32, the columns that depend on
    the bin; smooth : (places · widths,) bool, by the cell's lower node.
    """

    describe: Describe
    grid: Grid
    widths: int
    values: Tensor
    of_bins: Tensor
    smooth: Tensor

    @classmethod
    def build(cls, describe: Describe, grid: Grid, own: int, bins: int, device: torch.device, pool: Executor) -> Table:
        """Describe the densities of all nodes, in the threads of `pool`.

        own : columns that depend on the bin; bins : number of bins.
        """
        places = (grid.size - 1) * PLACES_PER_STEP + 1
        widths = math.floor(math.log((grid.z_max - grid.z_min) / grid.step) / LOG_WIDTH_STEP) + 1
        node = torch.arange(places * widths, device=device)
        place = grid.z_min + (node // widths) * (grid.step / PLACES_PER_STEP)
        log_width = math.log(grid.step) + (node % widths) * LOG_WIDTH_STEP
        values = torch.cat(list(pool.map(describe, place.split(CHUNK), log_width.split(CHUNK), repeat(None))))
        values, of_bins = values[:, : -own * bins].contiguous(), values[:, -own * bins :]
        mode = values[:, 0].reshape(places, widths)
        corners = torch.stack([mode[:-1, :-1], mode[1:, :-1], mode[:-1, 1:], mode[1:, 1:]])
        smooth = torch.zeros(places, widths, dtype=torch.bool, device=device)
        low, high = corners.amin(0), corners.amax(0)
        inner = (low > grid.z_min + 1.5 * grid.step) & (high < grid.z_max - 1.5 * grid.step)
        smooth[:-1, :-1] = inner & (high - low < 2 * grid.step)
        of_bins = of_bins.reshape(-1, bins, own).transpose(0, 1).reshape(-1, own)
        return cls(describe, grid, widths, values, of_bins, smooth.flatten())

    def __call__(self, place: Tensor, log_width: Tensor, bins: Tensor) -> Tensor:
        """(k, n) numbers of densities at places, log widths and bins (n,)."""
        look_up = self._look_up_compiled if place.device.type == "cpu" else self._look_up
        found, smooth = look_up(place, log_width, bins)
        rough = torch.nonzero(~smooth)[:, 0]
        if len(rough):
            found[:, rough] = self.describe(place[rough], log_width[rough], bins[rough]).T
        return found

    def _look_up(self, place: Tensor, log_width: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
        """(k, n) numbers, and (n,) whether they are good."""
        x = (place - self.grid.z_min) * (PLACES_PER_STEP / self.grid.step)
        y = (log_width - math.log(self.grid.step)) / LOG_WIDTH_STEP
        inside = (x >= 0) & (x < self._last) & (y >= 0) & (y < self.widths - 1)
        # NaN is not inside; it is given a place in the table here and its own answer later
        x, y = (torch.where(inside, value, 0.0) for value in (x, y))
        i, j = x.long(), y.long()
        a, b = x - i, y - j
        node = i * self.widths + j
        nodes = torch.stack([node, node + 1, node + self.widths, node + self.widths + 1], 1)
        shares = torch.stack([(1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b], 1)
        place_in_bin = nodes + (bins * len(self.values))[:, None]
        found = torch.cat(
            [
                functional.embedding_bag(rows, values, per_sample_weights=shares, mode="sum")
                for rows, values in ((nodes, self.values), (place_in_bin, self.of_bins))
            ],
            1,
        )
        return found.T.contiguous(), inside & self.smooth[node]

    def _look_up_compiled(self, place: Tensor, log_width: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
        """The same in one pass on a CPU."""
        tables = (*self._padded, self._smooth)
        rows = [a_block_at_least(one.float().numpy()) for one in (place, log_width, bins)]
        count = len(rows[0])
        found = np.empty((self.values.shape[1] + self.of_bins.shape[1], count), np.float32)
        smooth = np.empty(count, np.bool_)
        self._compiled(*tables, *rows, found, smooth, count)
        return torch.from_numpy(found)[:, : len(place)], torch.from_numpy(smooth)[: len(place)]

    @property
    def _last(self) -> int:
        """The last place's number."""
        return len(self.values) // self.widths - 1

    @cached_property
    def _padded(self) -> list[NDArray[np.float32]]:
        """`values` and `of_bins` with as many numbers behind them as a register holds: it is filled from any node on."""
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
            **dict.fromkeys(("place", "log_width", "bins"), ("rows",)),
            "found": (shared + own, "rows"),
        }
        arrays: dict[str, tuple[Any, Shape]] = {name: (np.float32, shape) for name, shape in shapes.items()}
        code = Code({**arrays, "good": (np.bool_, ("rows",))}, ("rows",))
        zero = code.constant(0)

        def block(row: Value) -> None:
            x = (code.load(code.place, row) - self.grid.z_min) * (PLACES_PER_STEP / self.grid.step)
            y = (code.load(code.log_width, row) - math.log(self.grid.step)) * (1 / LOG_WIDTH_STEP)
            inside = (x >= 0) & (x < self._last) & (y >= 0) & (y < self.widths - 1)
            x, y = (inside.where(value, zero) for value in (x, y))
            i, j = x.to_int(), y.to_int()
            a, b = x - i.to_float(), y - j.to_float()
            node = i * self.widths + j
            smooth = inside & (code.gather(code.smooth, node) > 0)
            code.store(smooth.where(1, code.lanes() * 0), code.good, row, BYTE)
            in_bin = node + code.load(code.bins, row).to_int() * len(self.values)
            shares = [(1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b]
            steps = (0, 1, self.widths, self.widths + 1)
            columns = [(code.values, node, shared), (code.of_bins, in_bin, own)]
            before = 0
            for table, at, width in columns:
                for first in range(0, width, LANES):
                    # Sixteen numbers of a node at a time, which are neighbors, and not one of sixteen nodes.
                    rows = []
                    for lane in range(LANES):
                        place = at.counted(lane)
                        parts = (
                            code.load(table, (place + step) * width + first) * share.of_lane(lane)
                            for step, share in zip(steps, shares, strict=True)
                        )
                        rows.append(reduce(add, parts))
                    for number, column in enumerate(code.transposed(rows)[: width - first]):
                        code.store(column, code.found, code.rows * (before + first + number) + row)
                before += width

        code.each_block(code.rows, block)
        return code.compiled()
