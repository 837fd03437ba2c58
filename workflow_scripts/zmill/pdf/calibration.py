"""Calibration of densities on held-out rows: a temperature, then a remap of the probability integral transform (PIT).

Both keep every density positive and cost a few passes over it. Of nothing, either and both, that is taken which gives
the highest mean log score on calibration rows that it was not fitted on (two-fold).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import comb
from torch import Tensor

from zmill.pdf.grid import Grid
from zmill.pdf.values import cdf_at, density_at

FLOOR = 1e-3
"""Density below which the log score no longer punishes: the weight of one certain but wrong row stays bounded."""
TEMPERATURES = (0.25, 4.0)
DEGREES = (4, 8)
PRIOR_ROWS = 2.0
"""Rows that each component of the remap is given beforehand: shrinks it towards the identity where rows are few."""
MIN_GAIN = 1e-3
"""Least gain of mean log score for which another pass over every density is worth its time."""
MIN_ROWS = 100
"""Fewer calibration rows than this decide nothing; the densities are left as they are."""

MAX_ROWS = 20_000
"""Of more rows, this many are taken, evenly spaced."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """`density -> density`, the identity by default.

    temperature : densities are raised to the power 1 / temperature (Guo et al. 2017, on the grid instead of logits).
    remap : (d + 1) weights w_k, adding up to 1, of the density of the PIT as a mixture of Bernstein polynomials,
        r(u) = sum_k w_k (d + 1) C(d, k) u^k (1 − u)^(d − k). The calibrated density is f(z) r(F(z)), whose PIT is
        uniform (Bordoloi et al. 2010). Weights that are all equal are the identity.
    """

    temperature: float = 1.0
    remap: tuple[float, ...] = ()

    def __call__(self, density: Tensor, grid: Grid) -> Tensor:
        """Calibrated densities, (n, grid.size), normalised; `density` itself is left untouched."""
        if self.temperature != 1.0:
            density = grid.normalize(density.pow(1.0 / self.temperature))
        if self.remap:
            u = grid.cdf(density)
            highest, *rest = reversed(_powers(self.remap))
            factor = torch.full_like(u, highest)
            for coefficient in rest:
                factor.mul_(u).add_(coefficient)
            density = grid.normalize(factor.clamp_min_(0).mul_(density))
        return density

    def state(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"temperature": self.temperature, "remap": list(self.remap)}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Calibration:
        """The reverse of `state`."""
        return cls(temperature=float(state["temperature"]), remap=tuple(float(c) for c in state["remap"]))


def fit(density: Tensor, grid: Grid, z: FloatArray, weight: FloatArray | None = None) -> Calibration:
    """Calibrate on rows that the model was not fitted on.

    density : (n, grid.size) normalised densities; z : (n,) their spectroscopic redshifts; weight : (n,), 1 if None.
    Rows outside the grid are left out. Returns the identity if nothing improves the score of held-out rows.
    """
    rows = np.flatnonzero((z >= grid.z_min) & (z <= grid.z_max))
    if len(rows) < MIN_ROWS:
        return Calibration()
    rows = rows[:: -(-len(rows) // MAX_ROWS)]
    chosen = torch.as_tensor(rows, device=density.device)
    data = _Rows(density[chosen], grid, z[rows], np.ones(len(rows)) if weight is None else weight[rows])
    folds = np.arange(len(data.z)) % 2 == 0
    best, score = Calibration(), _held_out(data, folds, lambda _: Calibration())
    for steps in _STEPS:
        found = _held_out(data, folds, steps)
        if _gains(found - score, data.weight):
            best, score = steps(data), found
    return best


@dataclass(frozen=True)
class _Rows:
    density: Tensor
    grid: Grid
    z: FloatArray
    weight: FloatArray

    def part(self, rows: NDArray[np.bool_]) -> _Rows:
        chosen = torch.as_tensor(np.flatnonzero(rows), device=self.density.device)
        return _Rows(self.density[chosen], self.grid, self.z[rows], self.weight[rows])

    def redshifts(self) -> Tensor:
        return torch.as_tensor(self.z, dtype=torch.float32, device=self.density.device)

    def scores(self, calibration: Calibration) -> FloatArray:
        """(n,) log scores."""
        value = density_at(calibration(self.density, self.grid), self.grid, self.redshifts())
        return np.asarray(np.log(value.double().cpu().numpy() + FLOOR))


def _held_out(data: _Rows, folds: NDArray[np.bool_], fit_on: Callable[[_Rows], Calibration]) -> FloatArray:
    """(n,) scores of each half's rows under the calibration fitted on the other half."""
    one, other = data.part(folds), data.part(~folds)
    found = np.empty(len(data.z))
    found[folds], found[~folds] = one.scores(fit_on(other)), other.scores(fit_on(one))
    return found


def _gains(difference: FloatArray, weight: FloatArray) -> bool:
    """Whether scores rise by enough to matter, and by more than twice the standard error of the rise."""
    share = weight / weight.sum()
    mean = share @ difference
    error = np.sqrt((share**2) @ (difference - mean) ** 2)
    return bool(mean > max(MIN_GAIN, 2 * error))


def _fit_temperature(data: _Rows) -> Calibration:
    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(
        lambda t: -np.average(data.scores(Calibration(float(np.exp(t)))), weights=data.weight),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return Calibration(round(float(np.exp(found.x)), 6))


def _fit_remap(data: _Rows, degree: int, start: Calibration | None = None) -> Calibration:
    """Maximum likelihood weights of the Bernstein mixture for the PIT, by expectation and maximization (convex)."""
    start = start or Calibration()
    density = start(data.density, data.grid)
    pit = cdf_at(density, data.grid.cdf(density), data.grid, data.redshifts()).double().cpu().numpy()
    basis = _bernstein(pit, degree)
    share = data.weight * data.weight.sum() / (data.weight**2).sum()
    weights = np.full(degree + 1, 1 / (degree + 1))
    for _ in range(500):
        before = weights
        expected = share @ (basis * weights / (basis @ weights)[:, None]) + PRIOR_ROWS
        weights = expected / expected.sum()
        if np.abs(weights - before).max() < 1e-7:
            break
    return Calibration(start.temperature, tuple(round(float(weight), 8) for weight in weights))


_STEPS: tuple[Callable[[_Rows], Calibration], ...] = (
    _fit_temperature,
    *(lambda data, d=degree: _fit_remap(data, d) for degree in DEGREES),
    *(lambda data, d=degree: _fit_remap(data, d, _fit_temperature(data)) for degree in DEGREES),
)
"""From the cheapest to apply to the dearest; a later one must be better to take the place of an earlier one."""


def _bernstein(u: FloatArray, degree: int) -> FloatArray:
    """(n, degree + 1) Bernstein polynomials, each scaled to integrate to 1 over [0, 1]."""
    k = np.arange(degree + 1)
    return (degree + 1) * comb(degree, k) * u[:, None] ** k * (1 - u[:, None]) ** (degree - k)


def _powers(remap: tuple[float, ...]) -> list[float]:
    """Coefficients of u^0 … u^d of the mixture: C(d, k) u^k (1 − u)^(d − k) = sum_j (−1)^(j − k) C(d, j) C(j, k) u^j."""
    degree = len(remap) - 1
    return [
        (degree + 1)
        * sum((-1) ** (j - k) * comb(degree, j, exact=True) * comb(j, k, exact=True) * remap[k] for k in range(j + 1))
        for j in range(degree + 1)
    ]
