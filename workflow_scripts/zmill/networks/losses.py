"""Losses and scores of networks whose outputs are probabilities on the points of the redshift grid."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zmill.pdf.grid import Grid, running_sum
from zmill.pdf.values import density_at

FARTHEST = -80.0
"""Lowest exponent of a label: smaller ones would give denormal numbers, with which processors are ten times slower."""


def soft_labels(z: Tensor, grid: Grid, width: float) -> Tensor:
    """(..., size) probabilities of the grid points for redshifts (...,).

    width : standard deviation in 1 + z of the Gaussian of a label; 0: the label is interpolated between the two nearest points.
    """
    distance = grid.tensor(z.device) - z[..., None]
    if width:
        label = distance.mul_(math.sqrt(0.5) / width / (1 + z[..., None])).square_().neg_().clamp_min_(FARTHEST).exp_()
    else:
        label = (1 - distance.abs() / grid.step).clamp_min(0)
    return label.div_(label.sum(-1, keepdim=True))


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """(...,) cross-entropy of logits and labels (..., size)."""
    return -(label * functional.log_softmax(logits, dim=-1)).sum(-1)


def crps_of_probabilities(probability: Tensor, z: Tensor, grid: Grid) -> Tensor:
    """(...,) CRPS of probabilities of the grid points (..., size) at redshifts (...,): half the probability of a point lies below it."""
    below = (grid.tensor(probability.device) >= z[..., None]).to(probability.dtype)
    return (running_sum(probability) - 0.5 * probability - below).square().sum(-1) * grid.step


class _DensityLoss(torch.autograd.Function):
    """`density_loss` with an explicit gradient, which takes a few passes over (..., size) numbers instead of some thirty."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, z: Tensor, grid: Grid, width: float, crps: float) -> Tensor:
        label = soft_labels(z, grid, width)
        log_p = functional.log_softmax(logits, dim=-1)
        value = -torch.linalg.vecdot(label, log_p)
        p = functional.softmax(logits, dim=-1)
        gradient = p - label
        if crps:
            off = running_sum(p).sub_(p, alpha=0.5).sub_((grid.tensor(z.device) >= z[..., None]).to(p.dtype))
            value.add_(torch.linalg.vecdot(off, off), alpha=crps * grid.step)
            # A probability counts in the cumulative sums of all later points, and half in its own.
            slope = off.sub_(running_sum(off), alpha=2.0).mul_(p)
            gradient.add_(slope, alpha=crps * grid.step)
            gradient.addcmul_(p, slope.sum(-1, keepdim=True), value=-crps * grid.step)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, *outside: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outside[0][..., None], None, None, None, None


def density_loss(logits: Tensor, z: Tensor, grid: Grid, width: float, crps: float) -> Tensor:
    """(...,) cross-entropy of logits (..., size) with `soft_labels` of redshifts (...,), plus `crps` times the CRPS."""
    found: Tensor = _DensityLoss.apply(logits, z, grid, width, crps)
    return found


def mean_crps(density: Tensor, z: Tensor, grid: Grid) -> float:
    """Mean over rows of the integral of (F - step at z) squared over the grid; densities (n, size), redshifts (n,)."""
    below = (grid.tensor(density.device) >= z[:, None]).float()
    return float((grid.cdf(density) - below).square().sum(1).mean()) * grid.step


def mean_cde_loss(density: Tensor, z: Tensor, grid: Grid) -> float:
    """Mean over rows of ∫ f² dz − 2 f(z) (Izbicki & Lee 2017, eq. 7); densities (n, size), redshifts (n,)."""
    between = density[:, :-1].square() + density[:, :-1] * density[:, 1:] + density[:, 1:].square()
    return float((between.sum(1) * (grid.step / 3) - 2 * density_at(density, grid, z)).mean())
