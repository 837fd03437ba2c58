"""Densities of rows with little information: the n(z) of the training rows, alone or mixed with the density of the model.

A row without any information has the density n(z). For a row with little information (of photometry: one measured band), or one
that is out of distribution, a model may be overconfident, because it was not calibrated on such rows. The density is then
(1 − w) f(z) + w n(z), where f is the calibrated density of the model. The prior weight w is fitted on calibration rows of the same
kind: for each class of rows with little information, rows from which the rest was removed (of photometry: for each band, rows in
which it was measured, without all other bands); and rows that are out of distribution. It is the weight of maximum likelihood, with two
pseudo-rows, one that n(z) alone explains and one that f alone explains. If the central 68 % or 95 % intervals have fewer rows than
that by more than one standard error, w is raised to the smallest larger weight with which they do not, or come nearest to it.
Conformal intervals are fitted for each kind as for a bin of magnitude (`zmill.pdf.conformal`). They are the full grid where there are
too few rows, and never narrower than those of the density itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmill.catalog.sizes import BATCH_BYTES
from zmill.chunks import evenly, row_chunks
from zmill.inputs.base import FULL, Batch, LabelledBatch
from zmill.inputs.degradation import Degradation
from zmill.pdf import conformal
from zmill.pdf.grid import Grid
from zmill.pdf.histogram import n_of_z
from zmill.pdf.values import cdf_at, density_at

REMOVAL_ROWS = 1000
"""Most calibration rows of each class with little information."""
CHUNK = 512
"""Rows whose densities are in memory at a time."""
FLOOR = 1e-3
"""Lower bound of densities in the likelihood, so that the influence of a row with a confident but wrong density is bounded."""
WEIGHTS = 65
"""Number of prior weights that are tried where the most likely one gives too low coverage."""

FloatArray = NDArray[np.float64]
Kinds = NDArray[np.int32]
"""(n,) kind of each row: FULL, the number of its class of little information, `classes` (out of distribution) or `classes` + 1
(no information)."""


@dataclass(frozen=True)
class Prior:
    """The n(z) of the training rows, its weight in the densities of each kind of row, and the contents of their intervals.

    density : (grid.size,) float32, normalized.
    weights : (kinds,) prior weights in [0, 1].
    contents : (kinds) × (coverages) probabilities of central intervals with the stated coverage.

    There are classes + 2 kinds: those of `Degradation.least`, rows out of distribution, and rows without any information.
    """

    density: Tensor
    weights: tuple[float, ...]
    contents: tuple[tuple[float, ...], ...]

    @property
    def classes(self) -> int:
        """Number of classes of rows with little information, and of the kind out of distribution."""
        return len(self.weights) - 2

    @property
    def nothing(self) -> int:
        """Number of the kind without any information."""
        return len(self.weights) - 1

    def kinds(self, batch: Batch, far: NDArray[np.bool_]) -> Kinds:
        """(n,) kind of each row. far : (n,) whether the row is out of distribution."""
        return kinds_of(batch.information(), far, self.classes)

    def mixed(self, density: Tensor, kinds: Tensor) -> Tensor:
        """(n, grid.size) densities mixed with n(z), with the prior weights of their kinds (n,), none of which is FULL."""
        prior = self.density.to(density)
        weight = torch.tensor(self.weights, dtype=density.dtype, device=density.device)[kinds.long()][:, None]
        return torch.where(weight < 1, density + weight * (prior - density), prior)

    def levels(self, device: torch.device | str = "cpu") -> Tensor:
        """(kinds, 4) cumulative probabilities of the ends of intervals, as `Conformal.levels`."""
        return conformal.levels(self.contents, device)

    def of(self, rows: LabelledBatch, grid: Grid) -> Prior:
        """The same prior weights with the n(z) of other training rows."""
        return replace(self, density=n_of_z(rows.z, rows.weight, grid))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON-ready facts."""
        return {"density": self.density}, {"weights": list(self.weights), "contents": [list(c) for c in self.contents]}

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Prior:
        """The reverse of `state`."""
        contents = tuple(tuple(float(value) for value in content) for content in facts["contents"])
        return cls(tensors["density"], tuple(float(weight) for weight in facts["weights"]), contents)


def fit(
    densities: Callable[[Any], Tensor],
    grid: Grid,
    train: LabelledBatch,
    calib: LabelledBatch,
    far: NDArray[np.bool_],
    degradation: Degradation,
) -> Prior:
    """Fit n(z) on training rows, and prior weights and intervals on calibration rows.

    Parameters
    ----------
    densities : function that gives the calibrated densities (n, grid.size) of a batch.
    far : (n,) calibration rows that are out of distribution.
    degradation : removal of parts of the data from rows of this survey.
    """
    density = n_of_z(train.z, train.weight, grid)
    least = _least(degradation, calib.batch)
    found = []
    for pattern, possible in least:
        rows = np.flatnonzero(possible)
        some = calib.rows(rows[evenly(len(rows), REMOVAL_ROWS)] if len(rows) else rows).in_memory()
        found.append(_fitted(densities, grid, density, replace(some, batch=degradation.apply(some.batch, pattern))))
    few = kinds_of(calib.batch.information(), far, len(least))
    found.append(_fitted(densities, grid, density, calib.rows(few == len(least))))
    found.append((1.0, _contents(_of_prior(density, grid, calib.z)[1], calib.weight)))
    return Prior(density, tuple(weight for weight, _ in found), tuple(contents for _, contents in found))


def _least(degradation: Degradation, batch: Batch) -> list[tuple[Any, NDArray[np.bool_]]]:
    """`Degradation.least` of all rows, some at a time."""
    parts = [
        degradation.least(batch[rows])
        for rows in row_chunks(max(len(batch), 1), batch.rows_in(BATCH_BYTES, len(batch)))
    ]
    masks = zip(*([mask for _, mask in part] for part in parts), strict=True)
    return [(pattern, np.concatenate(mask)) for (pattern, _), mask in zip(parts[0], masks, strict=True)]


def _fitted(
    densities: Callable[[Any], Tensor], grid: Grid, prior: Tensor, rows: LabelledBatch
) -> tuple[float, tuple[float, ...]]:
    """The prior weight of rows of one kind, and the contents of their intervals."""
    f, below = _at(lambda part: densities(rows.batch[part]), grid, rows.z, rows.batch.rows_in(BATCH_BYTES, CHUNK))
    n, n_below = _of_prior(prior, grid, rows.z)
    known = np.isfinite(f)  # where a model gives no density, the density is n(z)
    f, below = np.where(known, f, n), np.where(known, below, n_below)
    prior_weight = _prior_weight(f, below, n, n_below, rows.weight)
    pit = (1 - prior_weight) * below + prior_weight * n_below
    return prior_weight, _contents(pit, rows.weight)


def _prior_weight(f: FloatArray, below: FloatArray, n: FloatArray, n_below: FloatArray, weight: FloatArray) -> float:
    """The prior weight w, from the densities of model and n(z) at the true redshifts and the probabilities below them, (rows,) each."""
    from scipy.optimize import minimize_scalar  # not imported where a run is only planned

    rows = conformal.effective(weight)
    weight = weight * (rows / weight.sum()) if rows else weight

    def unlikely(w: float) -> float:
        likelihood = np.log(np.maximum((1 - w) * f + w * n, FLOOR))
        return -float(weight @ likelihood + np.log(w) + np.log1p(-w))

    likeliest = float(minimize_scalar(unlikely, bounds=(1e-4, 1 - 1e-4), method="bounded").x)
    if not rows:
        return likeliest

    def undercoverage(w: float) -> float:
        """The lowest coverage less its nominal value plus one standard error, over the central intervals; 0 where none is too low."""
        score = np.abs(2 * ((1 - w) * below + w * n_below) - 1)
        return min(
            0.0, *(float(weight @ (score <= c)) / rows - c + (c * (1 - c) / rows) ** 0.5 for c in conformal.COVERAGES)
        )

    return float(max(np.linspace(likeliest, 1, WEIGHTS), key=undercoverage))  # the smallest of equals


def _contents(pit: FloatArray, weight: FloatArray) -> tuple[float, ...]:
    """Contents of intervals with the stated coverage, none narrower than those of the density itself."""
    score = np.abs(2 * pit - 1)
    return tuple(max(coverage, conformal.content(score, weight, coverage)) for coverage in conformal.COVERAGES)


def _of_prior(prior: Tensor, grid: Grid, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    return _at(lambda part: prior.expand(len(z[part]), -1), grid, z)


def _at(
    densities: Callable[[slice], Tensor], grid: Grid, z: FloatArray, chunk: int = CHUNK
) -> tuple[FloatArray, FloatArray]:
    """(n,) densities of rows at their redshifts, and probabilities below them. densities : function that gives the densities of a slice of the rows."""
    f, below = np.empty((2, len(z)))
    for part in row_chunks(len(z), chunk):
        density, here = densities(part).double().cpu(), torch.as_tensor(z[part])
        f[part] = density_at(density, grid, here).numpy()
        below[part] = cdf_at(density, grid.cdf(density), grid, here).numpy()
    return f, below


def kinds_of(information: NDArray[np.int32], far: NDArray[np.bool_], classes: int) -> Kinds:
    """(n,) kinds of rows. information : `Batch.information`; far : whether the row is out of distribution."""
    kinds = np.where((information == FULL) & far, np.int32(classes), information)
    return np.where(information == classes, np.int32(classes + 1), kinds).astype(np.int32)
