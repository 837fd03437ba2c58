"""Point estimates of densities: mode, best, mean, median, standard deviation, percentiles and odds.

All but the mode and the best are exact for a density that is linear between grid points.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmill.chunks import cache_sized_chunks
from zmill.pdf import odds
from zmill.pdf.grid import Grid, constant
from zmill.pdf.values import cdf_at

PERCENTILES = {"z_median": 0.5, "z_p025": 0.025, "z_p160": 0.16, "z_p840": 0.84, "z_p975": 0.975}
LEVELS = tuple(sorted(PERCENTILES.values()))
COLUMNS = ("z_mode", "z_best", "z_mean", "z_median", "z_std", "z_p025", "z_p160", "z_p840", "z_p975", "odds")
BEST_WIDTH = 0.2
"""Distance in ln(1 + z) over which the loss that `best` makes least levels off."""
CHUNK = 2048
"""Rows computed at a time, so that they stay in the cache."""


def summarize(density: Tensor, grid: Grid) -> dict[str, Tensor]:
    """Every point estimate of normalized densities (n, grid.size), by name in the order of `COLUMNS`: (n,) float32."""
    return summarize_with(density, grid, LEVELS)[0]


def summarize_with(
    density: Tensor, grid: Grid, levels: tuple[float, ...], own: Tensor | None = None, width: float = odds.WIDTH
) -> tuple[dict[str, Tensor], Tensor]:
    """`summarize`, and quantiles from the same search.

    Parameters
    ----------
    levels : in (0, 1), those of `PERCENTILES` among them.
    own : (n, k) further levels, each row's own; the end of the grid is the quantile of what is not in (0, 1).
    width : of the odds, which are not calibrated (`zmill.pdf.odds`).

    Returns
    -------
    The point estimates, and (n, len(levels) + k) quantiles at the levels, in their order.
    """
    at = {name: levels.index(level) for name, level in PERCENTILES.items()}
    same = constant(levels, density.dtype, density.device)
    parts, quantiles = [], []
    for rows in cache_sized_chunks(len(density), CHUNK, density.device):
        part = density[rows]
        wanted = same.expand(len(part), -1)
        if own is not None:
            wanted = torch.cat([wanted, own[rows].to(wanted.dtype)], 1)
        cdf = grid.cdf(part)
        z = quantile(part, cdf, grid, wanted)
        peak = mode(part, grid)
        mean, std = moments(part, grid)
        columns = {"z_mode": peak, "z_best": best(part, grid), "z_mean": mean, "z_std": std}
        columns["odds"] = mass_near(part, cdf, grid, peak, width)
        parts.append(columns | {name: z[:, number] for name, number in at.items()})
        quantiles.append(z)
    return {name: torch.cat([part[name] for part in parts]) for name in COLUMNS}, torch.cat(quantiles)


def mode(density: Tensor, grid: Grid) -> Tensor:
    """(n,) highest grid point, refined by the parabola through it and its neighbors (by at most half a step)."""
    return _peak(density, grid)


def best(density: Tensor, grid: Grid) -> Tensor:
    """(n,) redshift of the least expected loss (after Tanaka et al. 2018, PASJ 70, S9), among the grid points and refined as the mode is.

    The loss is (1 − exp(−|x| / BEST_WIDTH))² with x the distance in ln(1 + z): the square of small errors, and the same for all that
    are large, as theirs, 1 − 1 / (1 + (Δz / 0.15)²), is. Between grid points the density counts as being on them.
    """
    return _peak(density @ _gain(grid, density.dtype, density.device), grid)


def decays(grid: Grid) -> NDArray[np.float64]:
    """(2, grid.size − 1) what a step from one grid point to the next leaves of exp(−|x| / BEST_WIDTH) and of its square."""
    step = np.exp(-np.diff(np.log1p(grid.z)) / BEST_WIDTH)
    return np.stack([step, step**2])


@lru_cache(maxsize=8)
def _gain(grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(size, size) 1 less the loss of an estimate at one grid point for the density at another; at its ends the grid holds half a
    step."""
    x = np.log1p(grid.z)
    gain = 1 - (1 - np.exp(-np.abs(x[:, None] - x) / BEST_WIDTH)) ** 2
    gain[[0, -1]] *= 0.5
    return torch.as_tensor(gain, dtype=dtype, device=device)


def _peak(values: Tensor, grid: Grid) -> Tensor:
    """(n,) redshift of each row's highest value on the grid, refined by the parabola through it and its neighbors."""
    index = _highest(values)
    inner = index.clamp(1, grid.size - 2)[:, None]
    left, peak, right = values.gather(1, torch.cat([inner - 1, index[:, None], inner + 1], 1)).unbind(1)
    curvature = left - 2 * peak + right
    shift = 0.5 * (left - right) / curvature.clamp_max(-torch.finfo(values.dtype).tiny)
    shift = torch.where(index == inner[:, 0], shift.clamp(-0.5, 0.5), torch.zeros_like(shift))
    return grid.z_min + grid.step * (index + shift)


def _highest(density: Tensor) -> Tensor:
    """(n,) index of each row's first maximum; on a CPU by numpy, which is several times faster at it."""
    if density.device.type == "cpu":
        return torch.from_numpy(density.numpy().argmax(1))
    return density.argmax(1)


def moments(density: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """(n,) mean and standard deviation, exact for the piecewise linear density."""
    weights = _moment_weights(grid, density.dtype, density.device)
    center = 0.5 * (grid.z_min + grid.z_max)
    total, first, second = (torch.mv(density, weight) for weight in weights)
    first, second = first / total, second / total
    return center + first, (second - first * first).clamp_min(0).sqrt()


def quantile(density: Tensor, cdf: Tensor, grid: Grid, levels: Tensor) -> Tensor:
    """(n, k) redshifts at which the cumulative distribution reaches the levels: its exact inverse.

    Inside a cell the cumulative distribution is F0 + step (f0 t + (f1 − f0) t²/2); the root is taken in the form that
    does not cancel. levels : (k,), or (n, k) where each row has its own; the ends of the grid for what is not in (0, 1).
    """
    wanted = levels.expand(len(density), -1).contiguous()
    cell = torch.searchsorted(cdf, wanted).sub_(1).clamp_(0, grid.size - 2)
    left, right = density.gather(1, cell), density.gather(1, cell + 1)
    rest = (wanted - cdf.gather(1, cell)).mul_(2 / grid.step)
    root = right.sub_(left).mul_(rest).addcmul_(left, left).clamp_min_(0).sqrt_()
    t = rest.div_(root.add_(left).clamp_min_(torch.finfo(density.dtype).tiny)).clamp_(0, 1)
    return t.add_(cell).mul_(grid.step).add_(grid.z_min)


def mass_near(density: Tensor, cdf: Tensor, grid: Grid, z: Tensor, width: float) -> Tensor:
    """(n,) probability within ±width (1 + z) of a point estimate z."""
    half = width * (1 + z)
    return cdf_at(density, cdf, grid, z + half) - cdf_at(density, cdf, grid, z - half)


@lru_cache(maxsize=8)
def _moment_weights(grid: Grid, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Integrals of 1, x and x² over the hat function of each grid point; x is measured from the grid's center."""
    x = grid.z - 0.5 * (grid.z_min + grid.z_max)
    h = grid.step
    cells = np.ones(grid.size)
    cells[[0, -1]] = 0.5
    first = h * x
    second = h * (x**2 + h**2 / 6)
    # At the ends only half of the hat lies on the grid: ∫0^h (1 − s/h)(x ± s)^k ds.
    for end, sign in ((0, 1), (-1, -1)):
        first[end] = h * (x[end] / 2 + sign * h / 6)
        second[end] = h * (x[end] ** 2 / 2 + sign * x[end] * h / 3 + h**2 / 12)
    one, two, three = (torch.as_tensor(w, dtype=dtype, device=device) for w in (h * cells, first, second))
    return one, two, three
