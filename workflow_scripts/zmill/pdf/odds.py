"""The odds of a redshift, which are the probability that it is right, and their calibration.

The odds of a density are the probability within ±width (1 + z_mode) of its mode (Benítez 2000, ApJ 536, 571, §4.2). The calibration of
the density makes its quantiles right and promises nothing for its highest peak. Odds are therefore calibrated themselves, so that of
the rows with odds p a fraction p has |z_mode − z| < width (1 + z). The map is monotone and has three parameters (beta calibration, Kull,
Silva Filho & Flach 2017, EJS 11, 5052): odds p become q with

    ln(q / (1 − q)) = above · ln p − below · ln(1 − p) + offset,     above, below ≥ 0.

It keeps the order of the rows, is the identity for 1, 1 and 0, and can be determined from a hundred rows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WIDTH = 0.1
"""Default width, for photometric redshifts."""
LEAST = 1e-6
"""Odds are kept this far from 0 and 1, where their logarithms are infinite."""
MIN_ROWS = 100
"""With fewer (effective) calibration rows, odds are not calibrated."""
PRIOR_ROWS = 1.0
"""Strength of the Gaussian prior that shrinks the three parameters towards the identity."""
LARGEST = 20.0
"""Upper limit of `above` and `below`."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Odds:
    """What is called a right redshift, and the calibration of the probability of one. The default is no calibration.

    width : a redshift is right where |z_mode − z| < width (1 + z).
    above, below, offset : parameters of the map.
    """

    width: float = WIDTH
    above: float = 1.0
    below: float = 1.0
    offset: float = 0.0

    def __call__(self, odds: Tensor) -> Tensor:
        """Calibrated odds of any shape."""
        if (self.above, self.below, self.offset) == (1.0, 1.0, 0.0):
            return odds
        kept = odds.clamp(LEAST, 1 - LEAST)
        return torch.log1p(-kept).mul_(-self.below).add_(kept.log_(), alpha=self.above).add_(self.offset).sigmoid_()

    def right(self, z_mode: NDArray[Any], z: NDArray[Any]) -> NDArray[np.bool_]:
        """(n,) whether redshifts are right. z_mode : (n,) estimates; z : (n,) true redshifts."""
        return np.asarray(np.abs(z_mode.astype(np.float64) - z) < self.width * (1 + z))

    def state(self) -> dict[str, float]:
        """JSON-ready form."""
        return asdict(self)

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Odds:
        """The reverse of `state`."""
        return cls(**{name: float(state[name]) for name in ("width", "above", "below", "offset")})


def fit(odds: FloatArray, right: NDArray[np.bool_], weight: FloatArray, width: float) -> Odds:
    """Calibrate odds on rows that the model was not fitted on, by penalized maximum likelihood (convex).

    Parameters
    ----------
    odds : (n,) odds of the calibrated densities.
    right : (n,) whether their redshifts are right (`Odds.right`).
    weight : (n,) weights of the rows.
    width : width of the odds.
    """
    from scipy.optimize import minimize  # only here: jobs that predict do without

    total = weight.sum()
    rows = total**2 / np.square(weight).sum() if total > 0 else 0.0
    if rows < MIN_ROWS:
        return Odds(width)
    kept = np.clip(odds, LEAST, 1 - LEAST)
    terms = np.column_stack([np.log(kept), -np.log1p(-kept), np.ones(len(kept))])
    sign = np.where(right, 1.0, -1.0)
    share = weight * (rows / total)
    identity = np.array([1.0, 1.0, 0.0])

    def negative(parameters: FloatArray) -> tuple[float, FloatArray]:
        margin = sign * (terms @ parameters)
        off = parameters - identity
        wrong = np.exp(-np.logaddexp(0, margin))
        gradient = PRIOR_ROWS * off - terms.T @ (share * sign * wrong)
        return float(share @ np.logaddexp(0, -margin) + 0.5 * PRIOR_ROWS * off @ off), gradient

    limits = [(0, LARGEST), (0, LARGEST), (None, None)]
    found = minimize(negative, identity, jac=True, method="L-BFGS-B", bounds=limits)
    return Odds(width, *(round(float(value), 8) for value in found.x))
