"""Densities in 64 bytes: 32 quantiles as 16-bit coordinates on the grid's range.

Quantiles keep more of a density per byte than steps or samples do (Malz et al. 2018). The levels are denser in the
tails, where outliers are told from the rest; a coordinate step is 1/65535 of the grid's range (0.00005 for 0 to 3).
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

_WITH_POINTS = tuple(sorted({*LEVELS, *points.LEVELS}))
_STORED = [_WITH_POINTS.index(level) for level in LEVELS]


def encode(density: Tensor, grid: Grid) -> Tensor:
    """(n, 32) uint16 codes of normalised densities (n, grid.size)."""
    return summarize_and_encode(density, grid)[1]


def summarize_and_encode(density: Tensor, grid: Grid) -> tuple[dict[str, Tensor], Tensor]:
    """`points.summarize` and `encode` at once, sharing the cumulative distribution and the search in it."""
    columns, z = points.summarize_with(density, grid, _WITH_POINTS)
    return columns, pack(z[:, _STORED], grid)


def pack(quantiles: Tensor, grid: Grid) -> Tensor:
    """(n, 32) uint16 codes of redshifts at `LEVELS`."""
    coordinate = (quantiles - grid.z_min) * (STEPS / (grid.z_max - grid.z_min))
    return coordinate.round_().clamp_(0, STEPS).to(torch.int32).to(torch.uint16)


def unpack(codes: Tensor, grid: Grid) -> Tensor:
    """(n, 32) float32 redshifts at `LEVELS`."""
    return codes.to(torch.float32) * ((grid.z_max - grid.z_min) / STEPS) + grid.z_min


def decode(codes: Tensor, grid: Grid) -> Tensor:
    """(n, grid.size) normalised densities of codes.

    The cumulative distribution is taken as linear between the stored quantiles and, in the two tails, out to the ends
    of the grid; a grid point's density is its mean over the half steps to both sides, so that it is never negative.
    """
    z = unpack(codes, grid).double()
    n = len(z)
    low, high = z.new_full((n, 1), grid.z_min), z.new_full((n, 1), grid.z_max)
    z = torch.cat([low, z, high], dim=1)
    levels = torch.tensor([0.0, *LEVELS, 1.0], dtype=z.dtype, device=z.device)
    inner = torch.as_tensor(grid.z, dtype=z.dtype, device=z.device)[1:] - 0.5 * grid.step
    edges = torch.cat([low[:1, 0], inner, high[:1, 0]]) if n else inner.new_zeros(grid.size + 1)
    wanted = edges.expand(n, -1).contiguous()
    right = torch.searchsorted(z, wanted, right=True).clamp_(1, len(LEVELS) + 1)
    left = right - 1
    z_left, z_right = z.gather(1, left), z.gather(1, right)
    span = (z_right - z_left).clamp_min_(torch.finfo(z.dtype).tiny)
    t = ((wanted - z_left) / span).clamp_(0, 1)
    cdf = torch.lerp(levels[left], levels[right], t)
    cdf[:, -1:] = 1.0
    widths = edges.diff().clamp_min(torch.finfo(z.dtype).tiny)
    return grid.normalize((cdf.diff(dim=1) / widths).clamp_min_(0).float())
