"""Calibration of densities: a power, a remap of the probability integral transform (PIT), a remap that differs row by row.

All keep a density positive and cost a few passes over it. `calibration_fit` fits them on held-out rows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import reduce
from math import comb
from typing import Any

import torch
from torch import Tensor

from zmill.pdf import points
from zmill.pdf.grid import Grid, constant

ROOTS = 8
"""Powers are multiples of 1 / 8: square roots and products, in a fraction of the time of a general power."""
REACH = 2.5
"""Features are clipped at this many standard deviations from the mean of the calibration rows."""


@dataclass(frozen=True)
class Local:
    """How the weights of the remap depend on a row: w_k ∝ remap_k exp(Σ_j slopes_jk x_j), x_j being standardized features.

    slopes : (features) × (degree + 1); center, spread : (features) mean and standard deviation over the calibration rows.
    """

    slopes: tuple[tuple[float, ...], ...]
    center: tuple[float, ...]
    spread: tuple[float, ...]

    def standardized(self, found: Tensor) -> Tensor:
        """(n, features) `features`, standardized."""
        center, spread = _tensor(self.center, found), _tensor(self.spread, found)
        return ((found - center) / spread).clamp_(-REACH, REACH)


@dataclass(frozen=True)
class Calibration:
    """`density -> density`, the identity by default.

    power : densities are raised to it: below 1 they get wider wings (the reciprocal of a temperature, Guo et al. 2017, on
        the grid instead of logits).
    remap : (d + 1) weights w_k, adding up to 1, of the density of the PIT as a mixture of Bernstein polynomials,
        r(u) = sum_k w_k (d + 1) C(d, k) u^k (1 − u)^(d − k). The calibrated density is f(z) r(F(z)), whose PIT is
        uniform (Bordoloi et al. 2010). Weights that are all equal are the identity.
    local : weights that depend on the row, so that the PIT is uniform for rows of every kind (after Cal-PIT, Dey et al.
        2022, with the mixture in the place of a network); None: the same for all rows.
    """

    power: float = 1.0
    remap: tuple[float, ...] = ()
    local: Local | None = None

    def __call__(self, density: Tensor, grid: Grid) -> Tensor:
        """Calibrated densities, (n, grid.size), normalized; `density` itself is left untouched."""
        shaped = density if self.power == 1.0 else _raised(density, round(self.power * ROOTS))
        if self.remap:
            u = grid.cdf(shaped)
            *lower, highest = self._coefficients(density, grid)
            factor = torch.addcmul(lower.pop(), u, highest)
            while lower:
                torch.addcmul(lower.pop(), u, factor, out=factor)
            shaped = factor.clamp_min_(0).mul_(shaped)
        return density if shaped is density else grid.normalize(shaped, out=shaped)

    def _coefficients(self, density: Tensor, grid: Grid) -> list[Tensor]:
        """Coefficients of u^0 … u^d of the remap: d + 1 numbers, or columns (n, 1) where they depend on the row."""
        matrix, remap = (_tensor(v, density) for v in (to_powers(len(self.remap) - 1), self.remap))
        if self.local is None:
            return list((matrix @ remap).unbind())
        x = self.local.standardized(features(density, grid))
        weights = (remap.log() + x @ _tensor(self.local.slopes, density)).softmax(1)
        return list((weights @ matrix.T).split(1, dim=1))

    def state(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "power": self.power,
            "remap": list(self.remap),
            "local": None if self.local is None else asdict(self.local),
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Calibration:
        """The reverse of `state`."""
        local = state["local"]
        if local is not None:
            slopes = tuple(tuple(float(v) for v in row) for row in local["slopes"])
            center, spread = (tuple(float(v) for v in local[name]) for name in ("center", "spread"))
            local = Local(slopes, center, spread)
        return cls(float(state["power"]), tuple(float(w) for w in state["remap"]), local)


def features(density: Tensor, grid: Grid) -> Tensor:
    """(n, 2) mean and logarithm of the standard deviation of each density."""
    mean, std = points.moments(density, grid)
    return torch.stack([mean, std.clamp_min(0.1 * grid.step).log()], 1)


def _raised(density: Tensor, eighths: int) -> Tensor:
    """`density` to the power eighths / 8, not normalized; only the roots that are needed are computed."""
    full, part = divmod(eighths, ROOTS)
    factors = [density] * full
    root = density
    for bit in (4, 2, 1):
        if part & (2 * bit - 1):
            root = root.sqrt()
        if part & bit:
            factors.append(root)
    return reduce(torch.mul, factors)


def _tensor(values: tuple[Any, ...], like: Tensor) -> Tensor:
    return constant(values, like.dtype, like.device)


def to_powers(degree: int) -> tuple[tuple[int, ...], ...]:
    """(d + 1) × (d + 1): weights of the mixture to coefficients of u^0 … u^d.

    C(d, k) u^k (1 − u)^(d − k) = sum_j (−1)^(j − k) C(d, j) C(j, k) u^j.
    """
    return tuple(
        tuple((degree + 1) * (-1) ** (j - k) * comb(degree, j) * comb(j, k) if k <= j else 0 for k in range(degree + 1))
        for j in range(degree + 1)
    )
