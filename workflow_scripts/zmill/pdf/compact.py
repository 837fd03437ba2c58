"""Densities in 64 bytes: 32 quantiles as 16-bit coordinates on the grid's range.

Quantiles keep more of a density per byte than steps or samples do (Malz et al. 2018). The levels are denser in the
tails, where outliers are identified; a coordinate step is 1/65535 of the grid's range (0.00005 for 0 to 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from zmill.pdf import points
from zmill.pdf.grid import Grid

_LOWER = (5e-4, 2e-3, 6e-3, 0.0125, 0.025, 0.045, 0.075, 0.115, 0.16, 0.205, 0.25, 0.295, 0.34, 0.385, 0.43, 0.475)
LEVELS = _LOWER + tuple(round(1 - level, 6) for level in reversed(_LOWER))
"""Cumulative probabilities of the stored quantiles."""
STEPS = 65_535

WITH_POINTS = (*LEVELS, *sorted(set(points.LEVELS) - set(LEVELS)))
"""`LEVELS`, followed by the further levels of the point estimates."""


def encode(density: Tensor, grid: Grid) -> Tensor:
    """(n, 32) uint16 codes of normalized densities (n, grid.size)."""
    return pack(points.summarize_with(density, grid, WITH_POINTS)[1][:, : len(LEVELS)], grid)


def pack(quantiles: Tensor, grid: Grid) -> Tensor:
    """(n, 32) uint16 codes of redshifts at `LEVELS`."""
    coordinate = (quantiles - grid.z_min) * (STEPS / (grid.z_max - grid.z_min))
    return coordinate.round_().clamp_(0, STEPS).to(torch.int32).to(torch.uint16)


def unpack(codes: Tensor, grid: Grid) -> Tensor:
    """(n, 32) float32 redshifts at `LEVELS`."""
    return codes.to(torch.float32) * ((grid.z_max - grid.z_min) / STEPS) + grid.z_min


def knots(codes: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """(36,) cumulative probabilities and (n, 36) redshifts between which the cumulative distribution is linear.

    These are the stored quantiles and two points for each tail: nearly all of what lies beyond the outermost quantile
    is put within 1.5 times the distance of the last two (a Gaussian's tail), the rest reaches to the end of the grid,
    so that no redshift on it is impossible.
    """
    z = unpack(codes, grid).double().clamp_(grid.z_min, grid.z_max)  # float32 may round beyond the end
    reach = 1.5 * torch.stack([z[:, 1] - z[:, 0], z[:, -1] - z[:, -2]], dim=1)
    low = (z[:, :1] - reach[:, :1]).clamp_min(grid.z_min)
    high = (z[:, -1:] + reach[:, 1:]).clamp_max(grid.z_max)
    ends = torch.ones_like(low)
    rest = 0.01 * LEVELS[0]
    levels = torch.tensor([0.0, rest, *LEVELS, 1 - rest, 1.0], dtype=z.dtype, device=z.device)
    return levels, torch.cat([grid.z_min * ends, low, z, high, grid.z_max * ends], dim=1)


def decode(codes: Tensor, grid: Grid) -> Tensor:
    """(n, grid.size) normalized densities of codes.

    The probability of the half steps to both sides of a grid point is kept, as far as a density that is linear between grid points
    and nowhere negative can: so its cumulative distribution is the levels' at the stored quantiles, but for peaks that are
    narrower than a step.
    """
    levels, z = knots(codes, grid)
    inner = torch.as_tensor(grid.z, dtype=z.dtype, device=z.device)[1:] - 0.5 * grid.step
    edges = torch.cat([inner.new_tensor([grid.z_min]), inner, inner.new_tensor([grid.z_max])])
    wanted = edges.expand(len(z), -1).contiguous()
    right = torch.searchsorted(z, wanted, right=True).clamp_(1, len(levels) - 1)
    left = right - 1
    z_left, z_right = z.gather(1, left), z.gather(1, right)
    t = ((wanted - z_left) / (z_right - z_left).clamp_min_(torch.finfo(z.dtype).tiny)).clamp_(0, 1)
    cdf = torch.lerp(levels[left], levels[right], t)
    cdf[:, 0], cdf[:, -1] = 0.0, 1.0  # probability at an end of the grid belongs to the adjacent half step
    return grid.normalize(_sharpened((cdf.diff(dim=1) / edges.diff()).clamp_min_(0)).float())


def _sharpened(mean: Tensor) -> Tensor:
    """(n, size) densities at grid points, from means over the half steps to both sides; the integral stays.

    Of densities f that are linear between grid points these means are (f[j - 1] + 6 f[j] + f[j + 1]) / 8: an eighth of the difference
    between neighbors is given back, but no more than a quarter of what is there.
    """
    more = (mean[:, :-1] - mean[:, 1:]) / 8
    more = more.minimum(mean[:, 1:] / 4).maximum(-mean[:, :-1] / 4)
    found = mean.clone()
    found[:, :-1] += more
    found[:, 1:] -= more
    found[:, 0] += more[:, 0]  # only half a step is at the ends
    found[:, -1] -= more[:, -1]
    return found
