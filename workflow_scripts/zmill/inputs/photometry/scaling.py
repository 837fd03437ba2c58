"""Scalers of input columns. They are fitted on training rows alone and saved with the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["none", "minmax", "standard", "robust"]


@dataclass(frozen=True)
class Scaler:
    """x -> (x - offset) / scale, column by column.

    offset, scale : (columns,) float32. A constant column has scale 1.
    """

    offset: Tensor
    scale: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Scale (n, columns)."""
        return (x - self.offset) / self.scale

    def to(self, device: torch.device) -> Scaler:
        """The same scaler on a device."""
        return Scaler(self.offset.to(device), self.scale.to(device))


def fit(kind: Kind, x: Tensor) -> Scaler:
    """Scaler of the columns of x (n, columns).

    `minmax` maps the extremes to 0 and 1, `standard` the mean to 0 and the standard deviation to 1, `robust` the median
    to 0 and the interquartile range to 1.
    """
    x = x.double()
    if kind == "none":
        offset, scale = torch.zeros_like(x[0]), torch.ones_like(x[0])
    elif kind == "minmax":
        offset, scale = x.amin(0), x.amax(0) - x.amin(0)
    elif kind == "standard":
        offset, scale = x.mean(0), x.std(0, unbiased=False)
    else:
        ordered = x.sort(0).values
        low, offset, high = (_quantile(ordered, q) for q in (0.25, 0.5, 0.75))
        scale = high - low
    scale = torch.where(scale > 1e-9 * (1 + offset.abs()), scale, torch.ones_like(scale))
    return Scaler(offset.float(), scale.float())


def _quantile(ordered: Tensor, q: float) -> Tensor:
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return torch.lerp(ordered[low], ordered[high], position - low)
