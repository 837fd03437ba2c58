"""Density and cumulative distribution at given redshifts, exact for densities that are linear between grid points."""

from __future__ import annotations

import torch
from torch import Tensor

from zmill.pdf.grid import Grid


def density_at(density: Tensor, grid: Grid, z: Tensor) -> Tensor:
    """(n,) values of each row's density at its own redshift; 0 outside the grid.

    density : (n, grid.size); z : (n,) redshifts.
    """
    cell, fraction, inside = _cell(grid, z)
    left, right = _ends(density, cell)
    return torch.where(inside, left + fraction * (right - left), torch.zeros_like(left))


def cdf_at(density: Tensor, cdf: Tensor, grid: Grid, z: Tensor) -> Tensor:
    """(n,) probabilities below each row's own redshift: the PIT where z is the true redshift.

    density, cdf : (n, grid.size), `cdf` being `grid.cdf(density)`; z : (n,) redshifts. 0 below the grid, 1 above it.
    """
    cell, fraction, inside = _cell(grid, z)
    left, right = _ends(density, cell)
    below = cdf.gather(1, cell[:, None])[:, 0]
    value = below + grid.step * fraction * (left + 0.5 * fraction * (right - left))
    outside = (z > grid.z_max).to(value.dtype)
    return torch.where(inside, value, outside).clamp(0, 1)


def _cell(grid: Grid, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    position = (z - grid.z_min) / grid.step
    cell = position.floor().clamp(0, grid.size - 2).long()
    inside = (z >= grid.z_min) & (z <= grid.z_max)
    return cell, position - cell, inside


def _ends(density: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    return density.gather(1, cell[:, None])[:, 0], density.gather(1, cell[:, None] + 1)[:, 0]
