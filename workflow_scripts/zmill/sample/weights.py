"""Weights with which labelled rows represent the rows of the survey: Lima et al. 2008, MNRAS 390, 118.

Labelled rows are selected by magnitude and color, so that their density in color space differs from that of the survey. The
weight of a row is the ratio of the two densities at its position: w_i ∝ N_survey(r_i) / (N_survey k), with r_i the distance from the row to its
k-th nearest labelled neighbor and N_survey(r_i) the number of survey rows within it. Redshifts are not used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from zmill.sample.target import FloatArray

BINS = 40
"""Bins of the distributions that the report shows."""


class SurveyDensity:
    """The density of the survey rows in color space, from which weights of labelled rows are computed.

    Parameters
    ----------
    rows : (m, k) a uniform draw of the survey rows in the space of their summary features.
    threads : number of threads of the neighbor search.
    """

    def __init__(self, rows: FloatArray, threads: int = 1) -> None:
        self.threads = threads
        known = np.isfinite(rows)
        self._axes = np.flatnonzero(known.any(0))  # an axis without any value is left out
        self._center = np.array([np.median(rows[known[:, axis], axis]) for axis in self._axes])
        self._there = self._complete(rows)
        self._tree = _tree(self._there)

    def weigh(self, labelled: FloatArray, neighbors: int, clip: float) -> FloatArray:
        """(n,) weights of labelled rows: mean 1, none above `clip`.

        Parameters
        ----------
        labelled : (n, k) summary features of labelled rows.
        neighbors : k; all other rows where there are fewer.
        """
        here = self._complete(labelled)
        radius = self._radius(_tree(here), here, neighbors)
        count = self._tree.query_ball_point(here, radius, return_length=True, workers=self.threads)
        # the labelled row is itself a survey row, drawn or not, so that no weight is zero
        return limited(np.maximum(count, 1).astype(np.float64), clip)

    def far(self, labelled: FloatArray, neighbors: int) -> float:
        """Fraction of the survey rows that no labelled row represents, whatever the weights.

        Such a row is farther from its nearest labelled row than the k-th labelled neighbor of that row is.
        """
        here = self._complete(labelled)
        tree = _tree(here)
        away, nearest = tree.query(self._there, workers=self.threads)
        return float(np.mean(away > self._radius(tree, here, neighbors)[nearest]))

    def _complete(self, rows: FloatArray) -> FloatArray:
        """Rows without NaN: unknown values, of labelled and survey rows, are replaced by the median of the survey."""
        known = rows[:, self._axes]
        return np.where(np.isfinite(known), known, self._center)

    def _radius(self, tree: cKDTree, here: FloatArray, neighbors: int) -> FloatArray:
        """(n,) distance of each labelled row to its k-th nearest other labelled row."""
        k = min(neighbors, len(here) - 1)
        return np.asarray(tree.query(here, [k + 1], workers=self.threads)[0][:, 0])  # the nearest is the row itself


def _tree(rows: FloatArray) -> cKDTree:
    return cKDTree(rows, leafsize=32, balanced_tree=False)


def limited(weight: FloatArray, most: float) -> FloatArray:
    """Positive weights, scaled by one factor and clipped at `most`, so that their mean is 1."""
    order = np.argsort(-weight, kind="stable")
    rest = np.cumsum(weight[order][::-1])[::-1]  # sum of the weights from here on
    clipped = np.arange(len(weight))
    factor = (len(weight) - most * clipped) / rest
    fits = factor * weight[order] <= most
    return np.minimum(weight * factor[np.argmax(fits)], most)


def effective_rows(weight: FloatArray) -> float:
    """(Σw)² / Σw²: the number of equally weighted rows whose mean has the same variance."""
    return float(weight.sum() ** 2 / (weight**2).sum())


def distance(values: FloatArray, weight: FloatArray, survey: FloatArray) -> float:
    """Kolmogorov–Smirnov distance: the largest difference of the cumulative distributions of weighted values and of the survey."""
    order = np.argsort(values, kind="stable")
    reached = np.concatenate([[0.0], np.cumsum(weight[order])]) / weight.sum()
    values, survey = values[order], np.sort(survey)
    at = np.concatenate([values, survey])
    own = reached[np.searchsorted(values, at, side="right")]
    return float(np.abs(own - np.searchsorted(survey, at, side="right") / len(survey)).max())


def compare(labelled: FloatArray, weight: FloatArray, survey: FloatArray, names: list[str]) -> list[dict[str, Any]]:
    """Per axis, distributions of labelled rows, weighted labelled rows and the survey's rows; JSON-ready.

    Returns
    -------
    Name, edges of the bins, the fraction of rows in each bin for `survey`, `labelled` and `weighted` (values beyond the edges
    count in the outermost bins), and the distances `ks` and `ks_weighted` of the labelled rows from the survey. Axes without
    values in the labelled rows or in the survey are left out.
    """
    found = []
    for axis, name in enumerate(names):
        known, there = np.isfinite(labelled[:, axis]), np.isfinite(survey[:, axis])
        if not known.any() or not there.any():
            continue
        mine, w, others = labelled[known, axis], weight[known], survey[there, axis]
        low, high = np.quantile(np.concatenate([mine, others]), (0.002, 0.998))
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)

        def fractions(values: FloatArray, weights: FloatArray | None = None, edges: FloatArray = edges) -> list[float]:
            counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges, weights=weights)
            return [round(float(value), 6) for value in counts / counts.sum()]

        found.append(
            {
                "name": name,
                "edges": [round(float(edge), 4) for edge in edges],
                "survey": fractions(others),
                "labelled": fractions(mine),
                "weighted": fractions(mine, w),
                "ks": round(distance(mine, np.ones(len(mine)), others), 4),
                "ks_weighted": round(distance(mine, w, others), 4),
            }
        )
    return found
