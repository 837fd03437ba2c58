"""Calibration, point estimates and quantiles of densities in one pass, compiled for the processor.

The results equal those of `calibration` and `points`, which remain the definition and run on a GPU. As operations on tensors they
read and write every density some forty times, which costs more than the network. Here 16 rows are computed in the lanes of a
register, grid point by grid point, and stay in the first-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add, mul
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from zmill.kernels.simd import BYTE, HUGE, LANES, LOG2_E, SHORT, Code, Shape, Value
from zmill.pdf import compact, odds, points
from zmill.pdf.calibration import REACH, Calibration, to_powers
from zmill.pdf.grid import Grid

FLOOR = -80.0
"""Lower limit of the base-2 logarithm of a density relative to its peak."""
LEAST = 1e-30
"""Lower limit of a calibrated density, so that a density that would vanish everywhere is flat."""


class Fused:
    """Calibrates densities and computes their point estimates and quantiles on a CPU.

    Parameters
    ----------
    packed : whether compact PDFs are computed.
    own : number of row-specific levels.
    odds_width : width of the odds, which are not calibrated.
    """

    def __init__(
        self, calibration: Calibration, grid: Grid, packed: bool, own: int, odds_width: float = odds.WIDTH
    ) -> None:
        self.grid, self.packed, self.own = grid, packed, own
        self._levels = compact.WITH_POINTS if packed else points.LEVELS
        self._decays = points.decays(grid).astype(np.float32)
        self._run = _Pass(calibration, grid, self._levels, packed, own, odds_width).code.compiled()

    def __call__(self, log_density: Tensor, own: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Calibrate densities and compute their point estimates and quantiles.

        Parameters
        ----------
        log_density : (n, grid.size) float32, natural logarithms of unnormalized densities; −∞ for density 0.
        own : (n, self.own) row-specific levels; the quantile of a level outside (0, 1) is the end of the grid.

        Returns
        -------
        (10 + self.own, n) float32, point estimates in the order of `points.COLUMNS` and quantiles at the own levels;
        (n, 32) uint16, compact PDFs if `packed`; (n,) bool, rows whose density has NaN or is 0 everywhere. These are replaced by
        a flat density without calibration.

        Raises
        ------
        ValueError
            If an array has another shape or type, or is not on the CPU.
        """
        for name, array, width in (("log_density", log_density, self.grid.size), ("own", own, self.own)):
            if array.shape != (len(log_density), width) or array.dtype != torch.float32 or array.device.type != "cpu":
                raise ValueError(
                    f"{name}: found {array.dtype} of shape {tuple(array.shape)} on {array.device}; "
                    f"expected torch.float32 of shape {(len(log_density), width)} on cpu"
                )
        rows, given = len(log_density), max(len(log_density), LANES)
        if given > rows or log_density.shape[1] < LANES or log_density.stride(1) != 1:
            wider = max(0, LANES - log_density.shape[1])
            log_density = functional.pad(log_density, (0, wider, 0, given - rows)).contiguous()
            own = functional.pad(own, (0, 0, 0, given - rows))
        found = np.empty((len(points.COLUMNS) + self.own, given), np.float32)
        codes = np.empty((given, len(compact.LEVELS) if self.packed else 0), np.uint16)
        lost = np.empty(given, np.bool_)
        size, count = _padded(self.grid.size), len(self._levels) + self.own
        tile, cdf, gain, quantiles = (np.empty((length, LANES), np.float32) for length in (size, size, size, count))
        # Rows may be strided in memory: a 1-D view from the first number to the last.
        span = (given - 1) * log_density.stride(0) + log_density.shape[1]
        given_arrays = log_density.as_strided((span,), (1,)).numpy(), own.contiguous().numpy(), self._decays
        arrays = *given_arrays, tile, cdf, gain, quantiles, found, codes, lost
        if rows:
            self._run(*arrays, given, log_density.stride(0))
        numbers = torch.from_numpy(found)[:, :rows]
        return numbers, torch.from_numpy(codes)[:rows] if self.packed else None, torch.from_numpy(lost)[:rows]


def _padded(size: int) -> int:
    """Grid points of a tile: a search looks up to 15 beyond the last one, rounded up."""
    return (size + LANES - 1) // LANES * LANES + LANES


class _Pass:
    """Generates the code, sixteen rows at a time. Redshifts and widths are in grid steps from the start of the grid."""

    def __init__(
        self, calibration: Calibration, grid: Grid, levels: tuple[float, ...], packed: bool, own: int, odds_width: float
    ) -> None:
        self.odds_width = odds_width
        self.calibration, self.grid, self.levels, self.own = calibration, grid, levels, own
        self.size, self.last = grid.size, grid.size - 1
        tile, count = (_padded(grid.size), LANES), len(levels) + own
        shapes: dict[str, Shape] = {
            "log_density": (),  # rows may be strided; `Fused` checks their shape
            "own_levels": ("rows", own),
            "decays": (2, self.last),
            **dict.fromkeys(("tile", "cdf", "gain"), tile),
            "quantiles": (count, LANES),
            "found": (len(points.COLUMNS) + own, "rows"),
        }
        arrays: dict[str, tuple[Any, Shape]] = {name: (np.float32, shape) for name, shape in shapes.items()}
        arrays["codes"] = np.uint16, ("rows", len(compact.LEVELS) if packed else 0)
        arrays["lost"] = np.bool_, ("rows",)
        code = self.code = Code(arrays, ("rows", "stride"))
        code.each_block(code.rows, lambda row: self._rows(row, packed))

    def _rows(self, row: Value, packed: bool) -> None:
        """Rows `row` to `row` + 15."""
        code, z_min, step = self.code, self.grid.z_min, self.grid.step
        highest, at, lost = self._load(row)
        code.store(lost.where(1, code.lanes() * 0), code.lost, row, BYTE)
        density, center = self._calibrated(highest, at, lost)
        total, top, at, *sums = self._integrated(density, center)
        left, right = (code.load(code.tile, LANES * point) for point in (0, self.last))
        mean, std = self._moments(sums, left, right, center)
        mode, best = self._peak(code.tile, top, at), self._best(left, right)
        quantiles = self._quantiles(row, total)
        positions = {"z_mode": mode, "z_best": best, "z_mean": mean}
        numbers = {name: position * step + z_min for name, position in positions.items()} | {"z_std": std * step}
        numbers |= {name: quantiles(self.levels.index(level)) for name, level in points.PERCENTILES.items()}
        numbers["odds"] = self._odds(mode, total)
        for column, name in enumerate(points.COLUMNS):
            code.store(numbers[name], code.found, code.rows * column + row)

        def end(number: Value) -> tuple[()]:
            value = quantiles(number + len(self.levels))
            code.store(value, code.found, code.rows * (number + len(points.COLUMNS)) + row)
            return ()

        code.loop(0, self.own, 1, end)
        if packed:
            self._pack(row)

    def _each(self, body: Callable[..., tuple[Value, ...]], *carried: Value, start: int = 0) -> tuple[Value, ...]:
        """Over the grid points: `body(offset in the tile, grid point, *carried)`."""
        return self.code.loop(
            start, self.size, 1, lambda point, *carried: body(point * LANES, point.spread(), *carried), *carried
        )

    def _load(self, row: Value) -> tuple[Value, Value, Value]:
        """Rows to the lanes of the tile; each lane's highest value, its grid point, and whether there is no density."""
        code, at_once = self.code, min(LANES, self.size)

        def block(point: Value, highest: Value, at: Value, unknown: Value) -> tuple[Value, ...]:
            point = point.min(max(self.size - LANES, 0))
            start = row * code.stride + point
            rows = [code.load(code.log_density, start + code.stride * lane) for lane in range(LANES)]
            for number, value in enumerate(code.transposed(rows)[:at_once]):
                code.store(value, code.tile, (point + number) * LANES)
                higher = value > highest
                highest, at = higher.where(value, highest), higher.where((point + number).spread(), at)
                unknown = unknown | value.unknown()
            return highest, at, unknown

        zero = code.constant(0)
        highest, at, unknown = code.loop(0, self.size, LANES, block, code.constant(-HUGE), zero, zero.unknown())
        return highest, at, unknown | (highest > HUGE) | (highest.max(-HUGE) < -0.99 * HUGE)

    def _calibrated(self, highest: Value, at: Value, lost: Value) -> tuple[Callable[[Value], Value], Value]:
        """A function of the unnormalized calibrated density at an offset in the tile, and a position near its mean."""
        code, tile, calibration = self.code, self.code.tile, self.calibration

        def height(offset: Value) -> Value:
            return lost.where(0, (code.load(tile, offset) - highest) * LOG2_E)

        def raised(offset: Value) -> Value:
            return (height(offset) * calibration.power).max(FLOOR).exp2()

        if not calibration.remap:
            return raised, at
        coefficients, center = self._coefficients(height, at)

        def summed(offset: Value, point: Value, *carried: Value) -> tuple[Value, ...]:
            return self._summed(offset, raised(offset), *carried)

        _, _, total = self._each(summed, *self._first(raised), start=1)
        scale = 1 / total

        def remapped(offset: Value) -> Value:
            u = code.load(code.cdf, offset) * scale
            *lower, factor = coefficients
            for coefficient in reversed(lower):
                factor = factor * u + coefficient
            return lost.where(1, (code.load(tile, offset) * factor).max(LEAST))

        return remapped, center

    def _coefficients(self, height: Callable[[Value], Value], at: Value) -> tuple[list[Value], Value]:
        """Coefficients of u^0 … u^d of the remap, and a position near the mean of the density."""
        code, remap, local = self.code, self.calibration.remap, self.calibration.local
        matrix = to_powers(len(remap) - 1)
        if local is None:
            return [code.constant(float(np.dot(line, remap))) for line in matrix], at

        def density(offset: Value) -> Value:
            return height(offset).max(FLOOR).exp2()

        def moments(offset: Value, point: Value, *sums: Value) -> tuple[Value, ...]:
            return _added(sums, density(offset), point - at)

        sums = self._each(moments, *[code.constant(0)] * 3)
        mean, std = self._moments(sums, density(code.count(0)), density(code.count(self.last * LANES)), at)
        features = mean * self.grid.step + self.grid.z_min, (std * self.grid.step).max(0.1 * self.grid.step).log()
        x = [
            ((feature - center) * (1 / spread)).max(-REACH).min(REACH)
            for feature, center, spread in zip(features, local.center, local.spread, strict=True)
        ]
        weights = []
        for weight, *slopes in zip(remap, *local.slopes, strict=True):
            power = code.constant(LOG2_E * math.log(weight) if weight > 0 else -math.inf)
            for feature, slope in zip(x, slopes, strict=True):
                power = power + feature * (LOG2_E * slope)
            weights.append(power.max(-100).min(100).exp2())
        scale = 1 / reduce(add, weights)
        return [reduce(add, map(mul, weights, line)) * scale for line in matrix], mean

    def _integrated(self, density: Callable[[Value], Value], center: Value) -> tuple[Value, ...]:
        """The tile's densities and their integrals up to each grid point, times 2; the last one of them, the highest density
        and its grid point, and sums for the moments about `center`."""
        code = self.code

        def step(offset: Value, point: Value, *carried: Value) -> tuple[Value, ...]:
            *reached, top, at = carried[:5]
            here = density(offset)
            higher = here > top
            top, at = higher.where(here, top), higher.where(point, at)
            return *self._summed(offset, here, *reached), top, at, *_added(carried[5:], here, point - center)

        first, _, zero = begin = self._first(density)
        sums = _added([zero] * 3, first, 0 - center)
        _, _, *found = self._each(step, *begin, first, zero, *sums, start=1)
        for point in range(self.size, _padded(self.size)):
            code.store(code.constant(HUGE), code.cdf, LANES * point)
        return tuple(found)

    def _first(self, density: Callable[[Value], Value]) -> tuple[Value, Value, Value]:
        """Store the values at the first grid point, and return the initial state of `_summed`."""
        code = self.code
        here, zero = density(code.count(0)), code.constant(0)
        code.store(here, code.tile, 0)
        code.store(zero, code.cdf, 0)
        return here, zero, zero

    def _summed(self, offset: Value, here: Value, before: Value, missed: Value, reached: Value) -> tuple[Value, ...]:
        """Store a density and the sum up to it. The rounding error is compensated (Kahan 1965), because where the density is low, a small
        error of the sum is a large one in redshift."""
        more = before + here - missed
        after = reached + more
        self.code.store(here, self.code.tile, offset)
        self.code.store(after, self.code.cdf, offset)
        return here, after - reached - more, after

    def _moments(self, sums: Sequence[Value], left: Value, right: Value, center: Value) -> tuple[Value, Value]:
        """Mean and standard deviation, of sums over the grid points, exact between them, as in `points`.

        left, right : densities at the ends, where only half of a grid point's hat is on the grid.
        """
        total, first, second = sums
        a, b = center, self.last - center
        second = second + total * (1 / 6)
        total = total - (left + right) * 0.5
        first = first + left * (a * 0.5 + 1 / 6) - right * (b * 0.5 + 1 / 6)
        second = second - left * (a * a * 0.5 + a * (1 / 3) + 1 / 12) - right * (b * b * 0.5 + b * (1 / 3) + 1 / 12)
        off = first / total
        return center + off, (second / total - off * off).max(0).sqrt()

    def _best(self, left: Value, right: Value) -> Value:
        """Position of the least expected loss, as in `points`.

        The gain of each grid point, with the kernel 2 exp(−|x|) − exp(−2|x|), is summed from the left and then from the right.

        left, right : densities at the ends.
        """
        code, tile, gain = self.code, self.code.tile, self.code.gain

        def decayed(slow: Value, fast: Value, step: Value) -> tuple[Value, Value]:
            return slow * code.spread(code.decays, step), fast * code.spread(code.decays, step + self.last)

        def from_left(point: Value, slow: Value, fast: Value) -> tuple[Value, Value]:
            slow, fast = (one + code.load(tile, point * LANES) for one in decayed(slow, fast, point - 1))
            code.store(slow * 2 - fast, gain, point * LANES)
            return slow, fast

        first, last = left * 0.5, right * 0.5
        code.store(first, gain, 0)
        slow, fast = code.loop(1, self.size, 1, from_left, first, first)
        end = (slow * 2 - fast) - last
        code.store(end, gain, self.last * LANES)

        def from_right(number: Value, slow: Value, fast: Value, top: Value, at: Value) -> tuple[Value, ...]:
            point = code.count(self.last) - number
            slow, fast = decayed(slow, fast, point)
            here = code.load(gain, point * LANES) + (slow * 2 - fast)
            code.store(here, gain, point * LANES)
            higher, own = here >= top, code.load(tile, point * LANES)
            return slow + own, fast + own, higher.where(here, top), higher.where(point.spread(), at)

        *_, top, at = code.loop(1, self.size, 1, from_right, last, last, end, code.constant(self.last))
        return self._peak(gain, top, at)

    def _peak(self, values: Value, top: Value, at: Value) -> Value:
        """The highest grid point, refined by the parabola through it and its neighbors."""
        lanes = self.code.lanes()
        offsets = ((at + by).max(0).min(self.last).to_int() * LANES + lanes for by in (-1, 1))
        left, right = (self.code.gather(values, offset) for offset in offsets)
        curvature = left - top * 2 + right
        shift = ((left - right) * 0.5 / curvature.min(-1e-37)).max(-0.5).min(0.5)
        inner = (at > 0) & (at < self.last)
        return at + inner.where(shift, self.code.constant(0))

    def _quantiles(self, row: Value, total: Value) -> Callable[[Value | int], Value]:
        """Compute the quantiles at all levels, and return a function that gives the redshifts of one by its number."""
        code, tile, cdf, lanes = self.code, self.code.tile, self.code.cdf, self.code.lanes()
        for number, level in enumerate(self.levels):
            code.store(total * level, code.quantiles, LANES * number)

        def store_own_level(number: Value) -> tuple[()]:
            level = code.gather(code.own_levels, lanes * self.own, row * self.own + number)
            code.store(total * level, code.quantiles, (number + len(self.levels)) * LANES)
            return ()

        code.loop(0, self.own, 1, store_own_level)

        def find(number: Value) -> tuple[()]:
            wanted = code.load(code.quantiles, number * LANES)
            at = lanes
            for point in range(LANES, self.size, LANES):
                at = (code.load(cdf, LANES * point) < wanted).where(lanes + LANES * point, at)
            for points_ahead in (8, 4, 2, 1):
                ahead = at + LANES * points_ahead
                at = (code.gather(cdf, ahead) < wanted).where(ahead, at)
            at = at.min(lanes + LANES * (self.last - 1))
            left, right = code.gather(tile, at), code.gather(tile, at + LANES)
            rest = wanted - code.gather(cdf, at)
            root = (left * left + (right - left) * rest).max(0).sqrt()
            inside = (rest / (root + left).max(1e-37)).max(0).min(1)
            code.store((at >> LANES.bit_length() - 1).to_float() + inside, code.quantiles, number * LANES)
            return ()

        code.loop(0, len(self.levels) + self.own, 1, find)
        return lambda number: code.load(code.quantiles, number * LANES) * self.grid.step + self.grid.z_min

    def _odds(self, mode: Value, total: Value) -> Value:
        """Probability near the mode."""
        code = self.code

        def below(position: Value) -> Value:
            position = position.max(0).min(self.last)
            cell = position.to_int().min(code.lanes() * 0 + (self.last - 1))
            at, inside = cell * LANES + code.lanes(), position - cell.to_float()
            left, right = code.gather(code.tile, at), code.gather(code.tile, at + LANES)
            return code.gather(code.cdf, at) + inside * (left * 2 + inside * (right - left))

        z = mode * self.grid.step + self.grid.z_min
        width = (z + 1) * (self.odds_width / self.grid.step)
        return ((below(mode + width) - below(mode - width)) / total).max(0).min(1)

    def _pack(self, row: Value) -> None:
        """Compact PDFs: the first quantiles, row by row."""
        code, width = self.code, len(compact.LEVELS)
        for first in range(0, width, LANES):
            quantiles = [code.load(code.quantiles, LANES * (first + level)) for level in range(LANES)]
            for lane, values in enumerate(code.transposed(quantiles)):
                rounded = (values * (compact.STEPS / self.last) + 0.5).to_int()
                code.store(rounded, code.codes, (row + lane) * width + first, SHORT)


def _added(sums: Sequence[Value], value: Value, off: Value) -> tuple[Value, ...]:
    """Sums of values, and of them times a distance and its square, with one more."""
    once = value * off
    return sums[0] + value, sums[1] + once, sums[2] + once * off
