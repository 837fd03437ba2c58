"""The fit of a calibration on rows that the model was not fitted on.

There are four candidates: no calibration, a power with a symmetric remap of the PIT, a power with any remap, and the
symmetric remap with weights that depend on the row. A candidate is taken only if it significantly improves calibration rows that it was not
fitted on (five folds). Fewer rows determine widths than shifts, and a remap that is not symmetric shifts every median by what may be
noise. The score is the mean log score minus the mean CRPS, in units of the CRPS before calibration: the log score favors wings that
contain outliers, and the CRPS limits their cost. A candidate that significantly worsens the CRPS is not taken either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmill.pdf.calibration import Calibration, Local, features
from zmill.pdf.grid import Grid
from zmill.pdf.values import cdf_at, density_at

FLOOR = 1e-3
"""Density below which the log score no longer punishes: the weight of one certain but wrong row stays bounded."""
WIDER, NARROWER = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25), (1.125, 1.25, 1.5, 2.0)
"""Powers that are tried in addition to 1, until the next one is no better."""
POWERS = (1.0, *WIDER, *NARROWER)
DEGREE = 6
PRIOR_ROWS = 2.0
"""Rows that each component of the remap is given beforehand: shrinks it towards the identity where rows are few."""
SLOPE_ROWS = 20.0
"""Strength of the Gaussian prior that shrinks the slopes towards the remap that is the same for all rows."""
MIN_GAIN = 1e-3
"""Least gain for which another pass over every density is worth its time."""
SURE = 2.0
"""Standard errors of a mean difference beyond which it is taken to be real."""
SURE_OF_WIDTHS = 1.0
"""The same for the first step, which changes widths alone: wrongly taken it costs little, wrongly left out it leaves all densities
too wide or too narrow."""
MIN_ROWS = 100
"""With fewer calibration rows, the densities are not calibrated."""
MAX_ROWS = 20_000
"""Of more rows, this many are taken, evenly spaced."""
FOLDS = 5
CELLS = 1000
"""Cells of the histogram of the PIT that the remap is fitted to."""
CHUNK = 4096

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]


def fit(
    densities: Callable[[NDArray[np.int64]], Tensor], grid: Grid, z: FloatArray, weight: FloatArray | None = None
) -> tuple[Calibration, FloatArray]:
    """Calibrate on rows that the model was not fitted on.

    Parameters
    ----------
    densities : function of row indices (k,) that returns normalized densities (k, grid.size). It is called for at most MAX_ROWS
        rows, so that memory does not grow with the rows.
    z : (n,) their spectroscopic redshifts; rows outside the grid are left out.
    weight : (n,), 1 if None.

    Returns
    -------
    The calibration, which is the identity if nothing betters held-out rows, and (n,) the PIT of each row under the
    same steps fitted on rows that it is not one of.
    """
    weight = np.ones(len(z)) if weight is None else weight
    rows = np.flatnonzero((z >= grid.z_min) & (z <= grid.z_max) & (weight > 0))
    rows = rows[:: max(1, -(-len(rows) // MAX_ROWS))]
    if len(rows) < MIN_ROWS:
        return Calibration(), _pit(Calibration(), densities, grid, z, np.arange(len(z)))
    data = _Rows.of(densities(rows), grid, z[rows], weight[rows])
    held_out = [_Scores(*np.empty((3, len(rows)))) for _ in range(4)]
    for fold in range(FOLDS):
        mine = np.arange(len(rows)) % FOLDS == fold
        for scores, calibration in zip(held_out, _steps(data, ~mine), strict=True):
            for all_rows, found in zip(scores, data.scores(calibration, mine), strict=True):
                all_rows[mine] = found
    best = 0
    for step in (1, 2, 3):
        gain = data.worth(held_out[step]) - data.worth(held_out[best])
        loss = held_out[step].crps - held_out[best].crps
        sure = SURE_OF_WIDTHS if step == 1 else SURE
        if _surely_above(gain, data.weight, MIN_GAIN, sure) and not _surely_above(loss, data.weight, 0.0, SURE):
            best = step
    chosen = _steps(data, np.ones(len(rows), bool))[best]
    others = np.delete(np.arange(len(z)), rows)
    pit = np.empty(len(z))
    pit[rows], pit[others] = held_out[best].pit, _pit(chosen, densities, grid, z, others)
    return chosen, pit


class _Scores(NamedTuple):
    log: FloatArray
    crps: FloatArray
    pit: FloatArray


@dataclass(frozen=True)
class _Rows:
    """Calibration rows with what the fits need of their densities.

    pit : (powers, n) PIT of each power of the density; x : (n, k) features; crps : the mean of the densities as they are.
    """

    density: Tensor
    grid: Grid
    z: FloatArray
    weight: FloatArray
    pit: FloatArray
    x: FloatArray
    crps: float

    @classmethod
    def of(cls, density: Tensor, grid: Grid, z: FloatArray, weight: FloatArray) -> _Rows:
        pit, x, crps = np.empty((len(POWERS), len(z))), [], []
        for start in range(0, len(z), CHUNK):
            part = slice(start, start + CHUNK)
            f = density[part]
            here = torch.as_tensor(z[part], dtype=f.dtype, device=f.device)
            x.append(features(f, grid))
            crps.append(_crps(grid.cdf(f), grid, here))
            for number, power in enumerate(POWERS):
                shaped = Calibration(power)(f, grid)
                pit[number, part] = cdf_at(shaped, grid.cdf(shaped), grid, here).double().cpu().numpy()
        plain = float(np.average(torch.cat(crps).double().cpu().numpy(), weights=weight))
        return cls(density, grid, z, weight, pit, torch.cat(x).double().cpu().numpy(), plain)

    def scores(self, calibration: Calibration, mine: Mask) -> _Scores:
        """Scores of some rows under a calibration."""
        rows = np.flatnonzero(mine)
        parts = []
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            f = calibration(_take(self.density, part), self.grid)
            z, cdf = torch.as_tensor(self.z[part], dtype=f.dtype, device=f.device), self.grid.cdf(f)
            log, pit = (density_at(f, self.grid, z) + FLOOR).log(), cdf_at(f, cdf, self.grid, z)
            parts.append(torch.stack([log, _crps(cdf, self.grid, z), pit]).double().cpu().numpy())
        return _Scores(*np.concatenate(parts, 1))

    def worth(self, scores: _Scores) -> FloatArray:
        """(n,) the objective, which is maximized."""
        return scores.log - scores.crps / self.crps


def _steps(data: _Rows, mine: Mask) -> tuple[Calibration, ...]:
    """The four steps, fitted on some of the rows."""
    even_power, even = _fit_remap(data, mine, symmetric=True)
    power, remap = _fit_remap(data, mine, symmetric=False)
    local = _fit_local(data, mine, even_power, even)
    return (
        Calibration(),
        Calibration(even_power, _rounded(even)),
        Calibration(power, _rounded(remap)),
        Calibration(even_power, _rounded(even), local),
    )


def _fit_remap(data: _Rows, mine: Mask, symmetric: bool) -> tuple[float, FloatArray]:
    """A power and the remap that is likeliest after it: wings come from the one, the core from the other."""
    weight = data.weight[mine]

    def tried(power: float, start: FloatArray) -> tuple[float, FloatArray]:
        remap = _likeliest_remap(data.pit[POWERS.index(power), mine], weight, start, symmetric)
        worth = data.worth(data.scores(Calibration(power, _rounded(remap)), mine))
        return float(np.average(worth, weights=weight)), remap

    power = 1.0
    best, remap = tried(power, np.full(DEGREE + 1, 1 / (DEGREE + 1)))
    for side in (WIDER, NARROWER):
        for candidate in side if power == 1.0 else ():
            value, found = tried(candidate, remap)
            if value < best + MIN_GAIN:
                break
            best, power, remap = value, candidate, found
    return power, remap


def _likeliest_remap(pit: FloatArray, weight: FloatArray, start: FloatArray, symmetric: bool) -> FloatArray:
    """Weights of the Bernstein mixture for the PIT, by expectation and maximization (convex) on its histogram."""
    cells = np.minimum((pit * CELLS).astype(np.int64), CELLS - 1)
    counts: FloatArray = np.bincount(cells, weight, CELLS).astype(np.float64)
    counts *= weight.sum() / (weight**2).sum()
    if symmetric:
        counts = 0.5 * (counts + counts[::-1])
    basis = _cell_basis()
    weights = start
    for _ in range(500):
        before = weights
        expected = weights * (basis.T @ (counts / (basis @ weights))) + PRIOR_ROWS
        weights = expected / expected.sum()
        if np.abs(weights - before).max() < 1e-7:
            break
    return weights


def _fit_local(data: _Rows, mine: Mask, power: float, remap: FloatArray) -> Local:
    """Slopes of the logarithms of the weights along the features, by penalized maximum likelihood."""
    from scipy.optimize import minimize  # only here: jobs that predict do without

    x, weight = data.x[mine], data.weight[mine]
    center = np.average(x, 0, weight)
    spread = np.sqrt(np.average((x - center) ** 2, 0, weight))
    # Where all rows are alike there are only rounding errors to be standardized.
    spread = np.where(spread > 1e-3, spread, 1.0)
    none = Local(((0.0,) * len(remap),) * x.shape[1], *(tuple(map(float, v)) for v in (center, spread)))
    terms = none.standardized(torch.from_numpy(x)).numpy()
    basis = _bernstein(data.pit[POWERS.index(power), mine])
    fraction = weight / weight.sum()
    ridge = SLOPE_ROWS * (fraction**2).sum()
    shape = (x.shape[1], len(remap))

    def negative(flat: FloatArray) -> tuple[float, FloatArray]:
        slopes = flat.reshape(shape)
        logits = np.log(remap) + terms @ slopes
        w = np.exp(logits - logits.max(1, keepdims=True))
        w /= w.sum(1, keepdims=True)
        likelihood = (w * basis).sum(1)
        posterior = w * basis / likelihood[:, None]
        gradient = ridge * slopes - terms.T @ (fraction[:, None] * (posterior - w))
        return float(0.5 * ridge * (slopes**2).sum() - fraction @ np.log(likelihood)), gradient.ravel()

    found = minimize(negative, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B")
    slopes = tuple(_rounded(row) for row in found.x.reshape(shape))
    return Local(slopes, none.center, none.spread)


def _crps(cdf: Tensor, grid: Grid, z: Tensor) -> Tensor:
    """(n,) CRPS of rows at their own redshifts, up to a grid step: enough to compare calibrations of the same rows."""
    below = (grid.tensor(cdf.device) >= z[:, None]).to(cdf.dtype)
    return (cdf - below).square_().sum(1) * grid.step


def _surely_above(difference: FloatArray, weight: FloatArray, least: float, errors: float) -> bool:
    """Whether the mean difference is above `least`, and above zero by more than so many standard errors."""
    fraction = weight / weight.sum()
    mean = fraction @ difference
    error = np.sqrt((fraction**2) @ (difference - mean) ** 2)
    return bool(mean > max(least, errors * error))


def _pit(
    calibration: Calibration,
    densities: Callable[[NDArray[np.int64]], Tensor],
    grid: Grid,
    z: FloatArray,
    rows: NDArray[np.int64],
) -> FloatArray:
    """PIT of some rows at their own redshifts; 0 or 1 beyond the grid."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        f = calibration(densities(rows[part]), grid)
        at = torch.as_tensor(z[rows[part]], dtype=f.dtype, device=f.device)
        found[part] = cdf_at(f, grid.cdf(f), grid, at).double().cpu().numpy()
    return found


def _take(density: Tensor, rows: NDArray[np.int64]) -> Tensor:
    return density[torch.as_tensor(rows, device=density.device)]


def _rounded(values: FloatArray) -> tuple[float, ...]:
    return tuple(round(float(value), 8) for value in values)


def _bernstein(u: FloatArray) -> FloatArray:
    """(n, degree + 1) Bernstein polynomials, each scaled to integrate to 1 over [0, 1]."""
    k = np.arange(DEGREE + 1)
    binomial = np.array([math.comb(DEGREE, number) for number in range(DEGREE + 1)])
    return np.asarray((DEGREE + 1) * binomial * u[:, None] ** k * (1 - u[:, None]) ** (DEGREE - k))


@lru_cache(maxsize=1)
def _cell_basis() -> FloatArray:
    """(CELLS, degree + 1) polynomials at the middle of each cell."""
    return _bernstein((np.arange(CELLS) + 0.5) / CELLS)
