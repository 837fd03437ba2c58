"""Calibration of densities on held-out rows: a temperature, then a remap of the probability integral transform (PIT).

Both keep every density positive and cost a few passes over it. Each is kept only if it raises the mean log score of
calibration rows that it was not fitted on (two-fold).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from zmill.pdf.grid import Grid
from zmill.pdf.values import cdf_at, density_at

FLOOR = 1e-3
"""Density below which the log score no longer punishes: the weight of one certain but wrong row stays bounded."""
TEMPERATURES = (0.25, 4.0)
DEGREES = (2, 4, 8)
LEVELS = 1024
MIN_ROWS = 100
"""Fewer calibration rows than this decide nothing; the densities are left as they are."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """`density -> density`, the identity by default.

    temperature : densities are raised to the power 1 / temperature (Guo et al. 2017, on the grid instead of logits).
    remap : coefficients c_k, k >= 1, of the log-density of the PIT in Legendre polynomials; the new cumulative
        distribution is R(F(z)) with R' = exp(sum_k c_k P_k(2 F - 1)) / norm, so that the PIT becomes uniform
        (Bordoloi et al. 2010: the remapped density is f(z) R'(F(z))).
    """

    temperature: float = 1.0
    remap: tuple[float, ...] = ()

    def __call__(self, density: Tensor, grid: Grid) -> Tensor:
        """Calibrated densities, (n, grid.size), normalised; `density` itself is left untouched."""
        if self.temperature != 1.0:
            density = grid.normalize(density.pow(1.0 / self.temperature))
        if self.remap:
            table = torch.as_tensor(_density_of_pit(self.remap), dtype=density.dtype, device=density.device)
            level = grid.cdf(density).mul_(LEVELS - 1).round_().int()
            density = grid.normalize(density * table[level])
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
    inside = (z >= grid.z_min) & (z <= grid.z_max)
    if inside.sum() < MIN_ROWS:
        return Calibration()
    rows = torch.as_tensor(np.flatnonzero(inside), device=density.device)
    data = _Rows(density[rows], grid, z[inside], np.ones(inside.sum()) if weight is None else weight[inside])
    folds = np.arange(len(data.z)) % 2 == 0
    best, score = Calibration(), _held_out(data, folds, lambda _: Calibration())
    improved = _held_out(data, folds, _fit_temperature)
    if improved > score:
        best, score = _fit_temperature(data), improved
    scores = [_held_out(data, folds, lambda part, d=degree: _fit_remap(part, best, d)) for degree in DEGREES]
    if max(scores) > score:
        best = _fit_remap(data, best, DEGREES[int(np.argmax(scores))])
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

    def score(self, calibration: Calibration) -> float:
        """Weighted mean log score."""
        value = density_at(calibration(self.density, self.grid), self.grid, self.redshifts())
        return float(np.average(np.log(value.double().cpu().numpy() + FLOOR), weights=self.weight))


def _held_out(data: _Rows, folds: NDArray[np.bool_], fit_on: Any) -> float:
    """Mean score of each half under the calibration fitted on the other."""
    one, other = data.part(folds), data.part(~folds)
    return 0.5 * (other.score(fit_on(one)) + one.score(fit_on(other)))


def _fit_temperature(data: _Rows) -> Calibration:
    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(
        lambda t: -data.score(Calibration(float(np.exp(t)))),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return Calibration(round(float(np.exp(found.x)), 6))


def _fit_remap(data: _Rows, before: Calibration, degree: int) -> Calibration:
    """Maximum likelihood of the exponential family exp(sum_k c_k P_k) for the PIT, by Newton steps on a convex problem.

    A Gaussian prior on c, narrower for higher k, shrinks the remap towards the identity where rows are few.
    """
    start = Calibration(before.temperature)
    density = start(data.density, data.grid)
    pit = cdf_at(density, data.grid.cdf(density), data.grid, data.redshifts()).double().cpu().numpy()
    observed = np.average(_basis(pit, degree), axis=0, weights=data.weight)
    u = (np.arange(LEVELS) + 0.5) / LEVELS
    basis = _basis(u, degree)
    effective = data.weight.sum() ** 2 / (data.weight**2).sum()
    prior = np.arange(1, degree + 1) ** 2.0 / effective
    c = np.zeros(degree)
    for _ in range(50):
        weight = np.exp(basis @ c - (basis @ c).max())
        weight /= weight.sum()
        mean = weight @ basis
        covariance = (basis * weight[:, None]).T @ basis - np.outer(mean, mean)
        step = np.linalg.solve(covariance + np.diag(prior), observed - mean - prior * c)
        c = c + step * min(1.0, 1.0 / np.abs(step).max())
        if np.abs(step).max() < 1e-9:
            break
    return Calibration(before.temperature, tuple(round(float(value), 8) for value in c))


def _basis(u: FloatArray, degree: int) -> FloatArray:
    """(n, degree) Legendre polynomials P_1 … P_degree of 2u − 1."""
    return legendre.legvander(2 * u - 1, degree)[:, 1:]


def _density_of_pit(remap: tuple[float, ...]) -> FloatArray:
    """(LEVELS,) R' at evenly spaced levels from 0 to 1, its mean 1."""
    u = np.linspace(0, 1, LEVELS)
    log = _basis(u, len(remap)) @ np.asarray(remap)
    density = np.exp(log - log.max())
    return density / np.trapezoid(density, u)
