"""Scores of densities at the true redshifts of their rows; float64."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch

from zmill.metrics import SMALLEST_DENSITY, FloatArray, PdfScores
from zmill.pdf.grid import Grid
from zmill.pdf.values import cdf_at, density_at


def pdf_scores(density: torch.Tensor, grid: Grid, z_spec: FloatArray, chunk: int = 4096) -> PdfScores:
    """Scores of normalised densities (n, grid.size), exact for densities that are linear between grid points.

    z_spec : (n,); beyond the grid the PIT is 0 or 1 and the distance to the grid adds to the CRPS in full.
    """
    parts = []
    for start in range(0, len(density), chunk):
        z = torch.as_tensor(z_spec[start : start + chunk], dtype=torch.float64, device=density.device)
        f = density[start : start + chunk].double()
        cdf = grid.cdf(f)
        at, pit = density_at(f, grid, z), cdf_at(f, cdf, grid, z)
        roughness = (f[:, :-1] ** 2 + f[:, :-1] * f[:, 1:] + f[:, 1:] ** 2).sum(1) * (grid.step / 3)
        scores = (pit, _crps(f, cdf, pit, at, grid, z), at.clamp_min(SMALLEST_DENSITY).log(), roughness - 2 * at)
        parts.append(PdfScores(*(value.cpu().numpy() for value in scores)))
    return PdfScores.join(parts) if parts else PdfScores(*(np.zeros(0) for _ in fields(PdfScores)))


def _crps(
    f: torch.Tensor, cdf: torch.Tensor, pit: torch.Tensor, at: torch.Tensor, grid: Grid, z: torch.Tensor
) -> torch.Tensor:
    """∫_{-∞}^{z} F² + ∫_z^∞ (1 − F)², F being quadratic within each cell.

    Over a cell from F = c on, F = c + g with ∫g = h² (f₀/3 + f₁/6) and ∫g² = h³ (2f₀²/15 + 3f₀f₁/20 + f₁²/20); beyond z,
    (F − 1)² − F² is added. The cell that holds z is done in its two parts.
    """
    h = grid.step
    clipped = z.clamp(grid.z_min, grid.z_max)
    cell = ((clipped - grid.z_min) / h).floor().clamp(0, grid.size - 2).long()
    left, right, below = f[:, :-1], f[:, 1:], cdf[:, :-1]
    gained = h**2 * (left / 3 + right / 6)
    squares = h**3 * (left * (2 / 15 * left + 3 / 20 * right) + right.square() / 20)
    squares += below * (h * below + 2 * gained)
    beyond = h * (1 - 2 * below) - 2 * gained
    index = torch.arange(grid.size - 1, device=f.device)
    take = cell[:, None]
    total = squares.sum(1) - squares.gather(1, take)[:, 0] + torch.where(index > take, beyond, 0.0).sum(1)
    start, end, base = left.gather(1, take)[:, 0], right.gather(1, take)[:, 0], below.gather(1, take)[:, 0]
    inside = clipped - (grid.z_min + h * cell)
    fraction = inside / h
    middle = start + fraction * (end - start)
    reached = base + 0.5 * inside * (start + middle)
    total = (
        total + _square_integral(base, start, middle, inside) + _square_integral(reached - 1, middle, end, h - inside)
    )
    return total + (z - clipped).abs()


def _square_integral(base: torch.Tensor, start: torch.Tensor, end: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """∫_0^width (base + ∫_0^s f)² ds for f linear from `start` to `end`."""
    total = torch.zeros_like(base)
    for node, share in zip(*np.polynomial.legendre.leggauss(3), strict=True):
        t = 0.5 * (1 + float(node))
        value = base + width * t * (start + 0.5 * t * (end - start))
        total = total + 0.5 * float(share) * width * value * value
    return total
