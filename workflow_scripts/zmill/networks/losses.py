"""Losses and scores of networks whose outputs are probabilities on the points of the redshift grid."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from zmill.pdf.grid import Grid, running_sum
from zmill.pdf.values import density_at
from zmill.sections import Section

FARTHEST = -80.0
"""Lowest exponent of a label: smaller ones would give denormal numbers, with which processors are ten times slower."""
JENSEN_SHANNON = "jensen_shannon"
NARROW = 0.25
"""A Gaussian whose standard deviation is a smaller fraction of a step of the grid has no shape on it: its label is interpolated."""


class LabelSettings(Section):
    """Settings of losses that compare distributions, for uncertain and for coarse labels."""

    loss: str = JENSEN_SHANNON
    entropy: float = Field(0.0, ge=0, le=1000)
    """Weight of the entropy of the predicted distribution in `loss: jensen_shannon`."""
    label_bins: int = Field(0, ge=0, le=100_000)
    """With `loss: jensen_shannon`, a redshift is only known to lie in one of so many equal bins of the redshift grid's range, and its
    label is uniform within it; 0: labels are as precise as their errors."""

    @model_validator(mode="after")
    def _of_distributions(self) -> Self:
        given = [name for name in ("entropy", "label_bins") if getattr(self, name)]
        if given and self.loss != JENSEN_SHANNON:
            raise ValueError(f"`{given[0]}` goes with `loss: {JENSEN_SHANNON}` (found loss {self.loss})")
        return self


class Labels(NamedTuple):
    """Labels of n rows: redshift, standard deviation in 1 + z, and weight of mean 1, (n,) each."""

    z: Tensor
    width: Tensor
    weight: Tensor

    @classmethod
    def of(cls, rows: LabelledRows, smoothing: float, device: torch.device) -> Labels:
        """The labels of rows on a device. Unknown errors count as 0; `smoothing`, in 1 + z, is added to errors in quadrature."""
        error = np.zeros(len(rows.z)) if rows.z_err is None else np.nan_to_num(rows.z_err)
        parts = rows.z, np.hypot(error / (1 + rows.z), smoothing), rows.weight / rows.weight.mean()
        return cls(*(torch.as_tensor(part, dtype=torch.float32, device=device) for part in parts))

    def rows(self, rows: Tensor) -> Labels:
        """Some of the rows."""
        return Labels(*(part[rows] for part in self))


class LabelledRows(Protocol):
    """What `Labels.of` needs of `zmill.inputs.base.LabelledBatch`."""

    @property
    def z(self) -> NDArray[np.float64]:
        """(n,) redshifts."""

    @property
    def z_err(self) -> NDArray[np.float64] | None:
        """(n,) their standard deviations, NaN where unknown; None where all are."""

    @property
    def weight(self) -> NDArray[np.float64]:
        """(n,) weights."""


class LabelDistributions:
    """Distributions over cells that labels are compared as: Gaussians, or uniform ones in coarse bins.

    grid : centers of the cells. ends : (size + 1) ends of the cells. bins : coarse bins of their range; 0: none.
    """

    def __init__(self, grid: Grid, ends: NDArray[np.float64], bins: int) -> None:
        self.grid, self.bins, self.low, self.high = grid, bins, float(ends[0]), float(ends[-1])
        self._coarse = torch.as_tensor(shares(bins, ends), dtype=torch.float32) if bins else None

    def __call__(self, labels: Labels) -> Tensor:
        """(n, size) probabilities."""
        if self._coarse is None:
            return soft_labels(labels.z, self.grid, labels.width)
        self._coarse = self._coarse.to(labels.z.device)
        return self._coarse[bin_of(labels.z, self.low, self.high, self.bins)]


def soft_labels(z: Tensor, grid: Grid, width: float | Tensor) -> Tensor:
    """(..., size) probabilities of the grid points for redshifts (...,).

    width : standard deviation in 1 + z of the Gaussian of a label, one number or (...,). A label narrower than the grid can show
        (`NARROW`), such as one of width 0, is interpolated between the two nearest points.
    """
    distance = grid.tensor(z.device) - z[..., None]
    sigma = (1 + z) * width
    narrow = sigma < NARROW * grid.step
    if isinstance(width, Tensor):  # which of them are narrow, the host would have to wait for
        some, every = True, False
    else:
        some, every = (width * (1 + end) < NARROW * grid.step for end in (grid.z_min, grid.z_max))
    linear = (1 - distance.abs() / grid.step).clamp_min(0) if some else None
    if not every:
        scale = math.sqrt(0.5) / sigma.clamp_min(NARROW * grid.step)
        distance = distance.mul_(scale[..., None]).square_().neg_().clamp_min_(FARTHEST).exp_()
        label = distance if linear is None else torch.where(narrow[..., None], linear, distance)
    else:
        assert linear is not None
        label = linear
    return label.div_(label.sum(-1, keepdim=True))


def bin_of(z: Tensor, low: float, high: float, bins: int) -> Tensor:
    """(n,) number of the equal bin of redshifts (n,): floor((z − low) / (high − low) bins), as Stivaktakis et al. (2020) define it."""
    return ((z - low) / (high - low) * bins).long().clamp(0, bins - 1)


def shares(bins: int, ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """(bins, cells) fraction of the width of each of so many equal bins of a range that lies in each cell.

    ends : (cells + 1) ends of the cells, increasing; the first and the last are those of the range.
    """
    edges = np.linspace(ends[0], ends[-1], bins + 1)
    common = np.minimum(edges[1:, None], ends[None, 1:]) - np.maximum(edges[:-1, None], ends[None, :-1])
    return np.asarray(np.maximum(common, 0) / np.diff(edges)[:, None])


def cell_ends(grid: Grid) -> NDArray[np.float64]:
    """(size + 1) ends of the cells of the grid points, half way between them; those of the first and the last are the grid's."""
    middle = (grid.z[1:] + grid.z[:-1]) / 2
    return np.concatenate([[grid.z_min], middle, [grid.z_max]])


def class_densities(grid: Grid, classes: int) -> Tensor:
    """(classes, grid.size) density of each bin, constant within it, averaged over the cell of each grid point."""
    ends = cell_ends(grid)
    return torch.as_tensor(shares(classes, ends) / np.diff(ends), dtype=torch.float32)


def jensen_shannon(logits: Tensor, label: Tensor, entropy: float) -> Tensor:
    """(...,) Jensen-Shannon divergence of predicted and label distributions plus `entropy` times the entropy of the predicted one, nats.

    JS = ½ KL(P‖M) + ½ KL(Q‖M) with M = (P + Q) / 2. The entropy makes predictions narrower than their labels, so that they need a
    calibration. It counts as far as a prediction agrees with its label, 1 − JS / ln 2, a factor that has no gradient: otherwise it
    would make an untrained network certain of any redshift, where the divergence, which is bounded, has no gradient either.

    logits, label : (..., size).
    """
    log_p = functional.log_softmax(logits, dim=-1)
    p = log_p.exp()
    log_m = ((p + label) / 2).clamp_min(torch.finfo(p.dtype).tiny).log()
    own = torch.linalg.vecdot(p, log_p)
    divergence = (own - torch.linalg.vecdot(p, log_m) + (torch.xlogy(label, label) - label * log_m).sum(-1)) / 2
    if not entropy:
        return divergence
    agreement = (1 - divergence.detach() / math.log(2)).clamp(0, 1)
    return divergence - entropy * agreement * own


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
    def forward(ctx: Any, logits: Tensor, z: Tensor, grid: Grid, width: float | Tensor, crps: float) -> Tensor:
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


def density_loss(logits: Tensor, z: Tensor, grid: Grid, width: float | Tensor, crps: float) -> Tensor:
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
