"""The redshift grid and densities on it. A density is (n, points) float32, piecewise linear between grid points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Evenly spaced redshifts from `z_min` to `z_max`, both included."""

    z_min: float
    z_max: float
    size: int

    @cached_property
    def z(self) -> NDArray[np.float64]:
        """(size,) redshifts."""
        return np.linspace(self.z_min, self.z_max, self.size)

    @property
    def step(self) -> float:
        """Distance between neighboring points."""
        return (self.z_max - self.z_min) / (self.size - 1)

    def tensor(self, device: torch.device | str = "cpu") -> Tensor:
        """(size,) float32 redshifts on a device."""
        return torch.as_tensor(self.z, dtype=torch.float32, device=device)

    def normalize(self, density: Tensor, out: Tensor | None = None) -> Tensor:
        """Scale (n, size) non-negative values so that each row's trapezoidal integral is 1.

        A row that is zero throughout has no shape to scale; it becomes flat, so that no PDF is ever empty.
        out : where to write them, `density` itself for example.
        """
        area = self.integral(density)
        empty = area <= 0
        if density.device.type != "cpu" or bool(empty.any()):  # to ask another device is to wait for it
            density = density.masked_fill(empty[:, None], 1.0)
            area = area.masked_fill(empty, self.z_max - self.z_min)
        return torch.div(density, area[:, None], out=out)

    def integral(self, density: Tensor) -> Tensor:
        """(n,) trapezoidal integrals."""
        return (density.sum(1) - 0.5 * (density[:, 0] + density[:, -1])) * self.step

    def cdf(self, density: Tensor) -> Tensor:
        """(n, size) cumulative distribution of a density of any scale; 0 at the first point, 1 at the last."""
        cdf = torch.empty_like(density)
        cdf[:, 0] = 0
        running_sum(density[:, 1:] + density[:, :-1], out=cdf[:, 1:])
        return cdf.div_(cdf[:, -1:].clamp_min(torch.finfo(cdf.dtype).tiny))


@lru_cache(maxsize=64)
def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers as a tensor, copied to a device once. The tensor is shared and must not be written to."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def running_sum(values: Tensor, out: Tensor | None = None) -> Tensor:
    """(..., size) sums of all values up to each along the last axis, the same to the bit in every run.

    On a GPU, whose cumsum may add in another order each time, as a product with a triangle of ones.
    out : where to write them.
    """
    if values.device.type != "cuda":
        return torch.cumsum(values, dim=-1, out=out)
    with torch.autocast("cuda", enabled=False):
        found = values @ triangle(values)
    return found if out is None else out.copy_(found)


def triangle(like: Tensor) -> Tensor:
    """(size, size) ones on and above the diagonal, of the type and on the device of a tensor (..., size)."""
    return torch.ones(like.shape[-1], like.shape[-1], dtype=like.dtype, device=like.device).triu_()
