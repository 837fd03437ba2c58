"""Calibration, point estimates and quantiles of densities in one pass, compiled for the processor.

The answers are those of `calibration` and `points`, which stay the definition and what a GPU runs; written as operations on
whole tensors they read and write every density some forty times, which costs more than the network that made it. Here 16
rows go side by side through the lanes of a vector, grid point by grid point, and stay in the processor's nearest cache.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

os.environ.setdefault("NUMBA_OPT", "1")  # the loops are written as they are to run: more only takes longer to compile
import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmill.pdf import points
from zmill.pdf.calibration import REACH, ROOTS, Calibration, to_powers
from zmill.pdf.grid import Grid

LANES = 16
"""Rows side by side: the float32 numbers of a 512-bit register."""
BLOCK = 8
"""Grid points that a lane goes through before the next lane's turn; a tile has as many more, which are zero."""
FAST = {"contract", "reassoc", "arcp", "nsz", "nnan", "ninf"}
"""What the compiler may assume of the arithmetic: neither NaN nor infinity, which callers keep away."""
HUGE = np.float32(3e38)
_f = np.float32

Floats = NDArray[np.float32]
Kernel = Callable[..., None]


class Fused:
    """Calibrates and describes densities on a CPU.

    Parameters
    ----------
    levels : in (0, 1), those of `points.PERCENTILES` among them.
    """

    def __init__(self, calibration: Calibration, grid: Grid, levels: tuple[float, ...]) -> None:
        self.grid, self.levels = grid, np.array(levels, np.float32)
        self._at = [levels.index(level) for level in points.PERCENTILES.values()]
        degree, local = len(calibration.remap) - 1, calibration.local
        self._kernel = _kernel(grid.size, degree, round(calibration.power * ROOTS), local is not None)
        matrix = np.array(to_powers(degree), np.float32).reshape(degree + 1, degree + 1)
        remap = np.array(calibration.remap, np.float32)
        if local is None:
            self._remap = (matrix, matrix @ remap, *(np.zeros((1, 1), np.float32),) * 2)
        else:
            ends = np.array([local.center, local.spread], np.float32)
            self._remap = (matrix, np.log(remap), np.array(local.slopes, np.float32), ends)

    def __call__(self, density: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Describe uncalibrated densities.

        Parameters
        ----------
        density : (n, grid.size) float32, finite and not negative.
        own : (n, k) further levels, each row's own; see `points.summarize_with`.

        Returns
        -------
        (9, n) point estimates in the order of `points.COLUMNS`, and (n, len(levels) + k) quantiles.
        """
        found = np.empty((len(points.COLUMNS) - len(self._at), len(density)), np.float32)
        z = np.empty((len(density), len(self.levels) + own.shape[1]), np.float32)
        grid = self.grid
        self._kernel(density.numpy(), self.levels, own.numpy(), *self._remap, _f(grid.z_min), _f(grid.step), found, z)
        mode, mean, std, odds = torch.from_numpy(found)
        quantiles = torch.from_numpy(z)
        named = dict(zip(points.PERCENTILES, (quantiles[:, place] for place in self._at), strict=True))
        named |= {"z_mode": mode, "z_mean": mean, "z_std": std, "odds": odds}
        return torch.stack([named[name] for name in points.COLUMNS]), quantiles


def _compiled(function: Any) -> Any:
    return numba.njit(nogil=True, fastmath=FAST, error_model="numpy")(function)


@_compiled
def _load(density: Floats, start: int, lanes: int, size: int, tile: Floats) -> None:
    """Rows `start`… to the lanes of a tile (grid point, lane); lanes without a row repeat the first one."""
    if lanes == LANES:
        for i in range(size):
            for lane in range(LANES):
                tile[i * LANES + lane] = density[start + lane, i]
        return
    for i in range(size):
        for lane in range(LANES):
            tile[i * LANES + lane] = density[start + (lane if lane < lanes else 0), i]


@_compiled
def _moments(tile: Floats, size: int, z_min: float, step: float, mean: Floats, std: Floats) -> None:
    """Mean and standard deviation of each lane, exact between grid points; the integrals are those of `points`.

    The second moment is taken about the mean, so that nothing cancels. Behind its last grid point the tile is zero.
    """
    last, half = (size - 1) * LANES, _f(0.5) * _f(size - 1)
    total, first, second = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    for i in range(0, size, BLOCK):
        for lane in range(LANES):
            here, moment = _f(0), _f(0)
            for j in range(BLOCK):
                value = tile[(i + j) * LANES + lane]
                here += value
                moment += (_f(i + j) - half) * value
            total[lane] += here
            first[lane] += moment
    for lane in range(LANES):
        # At the ends only half of a grid point's hat is on the grid.
        a, b = tile[lane], tile[last + lane]
        first[lane] -= (b - a) * (_f(0.5) * half + _f(1 / 6))
        total[lane] -= _f(0.5) * (a + b)
        mean[lane] = first[lane] / total[lane]
    for i in range(0, size, BLOCK):
        for lane in range(LANES):
            moment = _f(0)
            for j in range(BLOCK):
                off = _f(i + j) - half - mean[lane]
                moment += tile[(i + j) * LANES + lane] * (off * off + _f(1 / 6))
            second[lane] += moment
    for lane in range(LANES):
        a, b = half + mean[lane], half - mean[lane]
        second[lane] -= tile[lane] * (_f(0.5) * a * a + a * _f(1 / 3) + _f(1 / 12))
        second[lane] -= tile[last + lane] * (_f(0.5) * b * b + b * _f(1 / 3) + _f(1 / 12))
        std[lane] = step * _f(math.sqrt(max(second[lane] / total[lane], _f(0))))
        mean[lane] = z_min + step * (mean[lane] + half)


@_compiled
def _accumulate(tile: Floats, size: int, cdf: Floats) -> None:
    """Trapezoidal sums up to each grid point, times 2 / step; a lane that is zero throughout becomes flat first."""
    reached = np.zeros(LANES, np.float64)
    for lane in range(LANES):
        cdf[lane] = _f(0)
    for i in range(1, size, BLOCK):
        for lane in range(LANES):
            here = reached[lane]
            for j in range(BLOCK):
                here += tile[(i + j - 1) * LANES + lane] + tile[(i + j) * LANES + lane]
                cdf[(i + j) * LANES + lane] = _f(here)
            reached[lane] = here
    for lane in range(LANES):
        if cdf[(size - 1) * LANES + lane] <= _f(0):
            for i in range(size):
                tile[i * LANES + lane] = _f(1)
                cdf[i * LANES + lane] = _f(2 * i)
    for at in range(size * LANES, (size + BLOCK) * LANES):
        cdf[at] = HUGE


@_compiled
def _modes(tile: Floats, size: int, place: Floats) -> None:
    """Each lane's highest grid point, refined by the parabola through it and its neighbors, in steps from the grid's start."""
    peak, index = np.zeros(LANES, np.float32), np.zeros(LANES, np.int32)
    for i in range(0, size, BLOCK):
        for lane in range(LANES):
            highest, at = peak[lane], index[lane]
            for j in range(BLOCK):
                value = tile[(i + j) * LANES + lane]
                at = np.int32(i + j) if value > highest else at
                highest = max(value, highest)
            peak[lane], index[lane] = highest, at
    for lane in range(LANES):
        place[lane] = _f(index[lane])
        if 0 < index[lane] < size - 1:
            at = index[lane] * LANES + lane
            left, right = tile[at - LANES], tile[at + LANES]
            curvature = left - _f(2) * peak[lane] + right
            if curvature < _f(0):
                place[lane] += min(max(_f(0.5) * (left - right) / curvature, _f(-0.5)), _f(0.5))


@_compiled
def _below(tile: Floats, cdf: Floats, size: int, lane: int, place: float) -> np.float32:
    """Probability below a place of a lane, in steps from the grid's start."""
    if place <= _f(0):
        return _f(0)
    if place >= _f(size - 1):
        return _f(1)
    cell = min(int(place), size - 2)
    t, at = place - _f(cell), cell * LANES + lane
    inside = t * (_f(2) * tile[at] + t * (tile[at + LANES] - tile[at]))
    return min(max((cdf[at] + inside) / cdf[(size - 1) * LANES + lane], _f(0)), _f(1))


@lru_cache(maxsize=8)
def _kernel(size: int, degree: int, eighths: int, local: bool) -> Kernel:
    """The pass over all rows, compiled for one size of grid and one form of calibration.

    degree : of the remap, −1 for none; eighths : the power times 8.
    """
    whole, part = divmod(eighths, ROOTS)
    half_of_search = 1 << (size - 1).bit_length() - 1

    @_compiled
    def raise_to_power(tile: Floats, root: Floats) -> None:
        for at in range(size * LANES):
            value = tile[at]
            power = _f(1)
            for _ in range(whole):
                power *= value
            root[at] = value
            tile[at] = power
        bit = 4
        while part & (2 * bit - 1) and bit:
            for at in range(size * LANES):
                root[at] = _f(math.sqrt(root[at]))
            if part & bit:
                for at in range(size * LANES):
                    tile[at] *= root[at]
            bit >>= 1

    @_compiled
    def coefficients(
        mean: Floats, std: Floats, step: float, matrix: Floats, remap: Floats, slopes: Floats, ends: Floats, out: Floats
    ) -> None:
        weights = np.empty(degree + 1, np.float32)
        for lane in range(LANES):
            found = (mean[lane], _f(math.log(max(std[lane], _f(0.1) * step))))
            x0 = min(max((found[0] - ends[0, 0]) / ends[1, 0], _f(-REACH)), _f(REACH))
            x1 = min(max((found[1] - ends[0, 1]) / ends[1, 1], _f(-REACH)), _f(REACH))
            total = _f(0)
            for k in range(degree + 1):
                weights[k] = _f(math.exp(remap[k] + x0 * slopes[0, k] + x1 * slopes[1, k]))
                total += weights[k]
            for j in range(degree + 1):
                value = _f(0)
                for k in range(j + 1):
                    value += matrix[j, k] * weights[k]
                out[j * LANES + lane] = value / total

    @_compiled
    def reshape(tile: Floats, cdf: Floats, given: Floats) -> None:
        """Multiply by the remap's polynomial of the cumulative distribution."""
        scale = np.empty(LANES, np.float32)
        for lane in range(LANES):
            scale[lane] = _f(1) / cdf[(size - 1) * LANES + lane]
        for i in range(size):
            for lane in range(LANES):
                u = cdf[i * LANES + lane] * scale[lane]
                factor = given[degree * LANES + lane]
                for j in range(degree - 1, -1, -1):
                    factor = factor * u + given[j * LANES + lane]
                tile[i * LANES + lane] *= max(factor, _f(0))

    @_compiled
    def invert(
        tile: Floats, cdf: Floats, lane: int, levels: Floats, own: Floats, z_min: float, step: float,
        cell: NDArray[np.int32], wanted: Floats, z: Floats,
    ) -> None:  # fmt: skip
        total = cdf[(size - 1) * LANES + lane]
        number = len(levels)
        for k in range(number):
            wanted[k] = levels[k] * total
        for k in range(len(own)):
            wanted[number + k] = own[k] * total
        number += len(own)
        for k in range(number):
            cell[k] = 0
        half = half_of_search
        while half:
            for k in range(number):
                ahead = cell[k] + half
                cell[k] = ahead if cdf[ahead * LANES + lane] < wanted[k] else cell[k]
            half >>= 1
        for k in range(number):
            at = min(cell[k], size - 2)
            left, right = tile[at * LANES + lane], tile[(at + 1) * LANES + lane]
            rest = wanted[k] - cdf[at * LANES + lane]
            root = _f(math.sqrt(max(left * left + (right - left) * rest, _f(0))))
            t = min(max(rest / max(root + left, _f(1e-37)), _f(0)), _f(1))
            z[k] = z_min + step * (_f(at) + t)

    @_compiled
    def run(
        density: Floats, levels: Floats, own: Floats, matrix: Floats, remap: Floats, slopes: Floats, ends: Floats,
        z_min: float, step: float, found: Floats, z: Floats,
    ) -> None:  # fmt: skip
        tile = np.zeros((size + BLOCK) * LANES, np.float32)
        cdf = np.full((2 * half_of_search + BLOCK) * LANES, HUGE, np.float32)
        given = np.empty((degree + 1) * LANES, np.float32)
        mean, std, mode = np.empty(LANES, np.float32), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
        cell, wanted = np.empty(z.shape[1], np.int32), np.empty(z.shape[1], np.float32)
        for j in range(degree + 1):
            for lane in range(LANES):
                given[j * LANES + lane] = remap[j]
        for start in range(0, len(density), LANES):
            lanes = min(LANES, len(density) - start)
            _load(density, start, lanes, size, tile)
            if local:
                _moments(tile, size, z_min, step, mean, std)
                coefficients(mean, std, step, matrix, remap, slopes, ends, given)
            if eighths != ROOTS:
                raise_to_power(tile, cdf)
            if degree >= 0:
                _accumulate(tile, size, cdf)
                reshape(tile, cdf, given)
            _accumulate(tile, size, cdf)
            _modes(tile, size, mode)
            _moments(tile, size, z_min, step, mean, std)
            for lane in range(lanes):
                row = start + lane
                invert(tile, cdf, lane, levels, own[row], z_min, step, cell, wanted, z[row])
                peak = z_min + step * mode[lane]
                width = _f(points.ODDS_WIDTH) * (_f(1) + peak) / step
                found[0, row], found[1, row], found[2, row] = peak, mean[lane], std[lane]
                upper = _below(tile, cdf, size, lane, mode[lane] + width)
                found[3, row] = upper - _below(tile, cdf, size, lane, mode[lane] - width)

    return run
