"""What networks that answer with probabilities on the points of the redshift grid are trained and judged by."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from zmill.pdf.grid import Grid, running_sum


def soft_labels(z: Tensor, grid: Grid, width: float) -> Tensor:
    """(n, size) probabilities of the grid points for redshifts (n,).

    width : standard deviation in 1 + z of the Gaussian a label is spread over; 0: shared by the two nearest points.
    """
    distance = (grid.tensor(z.device) - z[:, None]).abs()
    if width:
        label = torch.exp(-0.5 * (distance / (width * (1 + z[:, None]))).square())
    else:
        label = (1 - distance / grid.step).clamp_min(0)
    return label / label.sum(1, keepdim=True)


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """(...,) cross-entropy of logits and labels (..., size)."""
    return -(label * functional.log_softmax(logits, dim=-1)).sum(-1)


def crps_of_probabilities(probability: Tensor, z: Tensor, grid: Grid) -> Tensor:
    """(...,) CRPS of probabilities of the grid points (..., size) at redshifts (...,): half a point's share lies below it."""
    below = (grid.tensor(probability.device) >= z[..., None]).to(probability.dtype)
    return (running_sum(probability) - 0.5 * probability - below).square().sum(-1) * grid.step


def mean_crps(density: Tensor, z: Tensor, grid: Grid) -> float:
    """Mean over rows of the integral of (F - step at z) squared over the grid; densities (n, size), redshifts (n,)."""
    below = (grid.tensor(density.device) >= z[:, None]).float()
    return float((grid.cdf(density) - below).square().sum(1).mean()) * grid.step
