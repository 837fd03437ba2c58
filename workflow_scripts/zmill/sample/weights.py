"""Weights with which labelled rows stand for the survey's rows: Lima et al. 2008, MNRAS 390, 118.

Labelled rows are chosen by magnitude and color, so their densities in these differ from the survey's. A row's weight is
the ratio of the two densities where it lies: w_i ∝ N_survey(r_i) / (N_survey k), with r_i the distance from the row to its
k-th nearest labelled neighbor and N_survey(r_i) the survey's rows within it. Redshifts take no part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from zmill.inputs.photometry.colors import FloatArray

BINS = 40
"""Bins of the distributions that the report shows."""


class SurveyDensity:
    """The survey's rows, to weigh labelled rows against.

    Parameters
    ----------
    rows : (m, bands) `places` of a uniform draw of the survey's rows.
    threads : that search neighbors.
    """

    def __init__(self, rows: FloatArray, threads: int = 1) -> None:
        self.threads = threads
        known = np.isfinite(rows)
        self._axes = np.flatnonzero(known.any(0))  # a band that is nowhere seen has no part
        self._center = np.array([np.median(rows[known[:, axis], axis]) for axis in self._axes])
        self._there = self._complete(rows)
        self._tree = _tree(self._there)

    def weigh(self, labelled: FloatArray, neighbors: int, clip: float) -> FloatArray:
        """(n,) weights of labelled rows: mean 1, none above `clip`.

        Parameters
        ----------
        labelled : (n, bands) their `places`.
        neighbors : k; all other rows where there are fewer.
        """
        here = self._complete(labelled)
        radius = self._radius(_tree(here), here, neighbors)
        count = self._tree.query_ball_point(here, radius, return_length=True, workers=self.threads)
        # the row itself is one of the survey's, drawn or not: no weight is zero
        return limited(np.maximum(count, 1).astype(np.float64), clip)

    def far(self, labelled: FloatArray, neighbors: int) -> float:
        """Share of the survey's rows that no labelled row speaks for, whatever the weights.

        They are farther from their nearest labelled row than that row's k-th labelled neighbor is.
        """
        here = self._complete(labelled)
        tree = _tree(here)
        away, nearest = tree.query(self._there, workers=self.threads)
        return float(np.mean(away > self._radius(tree, here, neighbors)[nearest]))

    def _complete(self, rows: FloatArray) -> FloatArray:
        """Places without NaN: what is unknown of a row, labelled or not, is taken to be the survey's median."""
        known = rows[:, self._axes]
        return np.where(np.isfinite(known), known, self._center)

    def _radius(self, tree: cKDTree, here: FloatArray, neighbors: int) -> FloatArray:
        """(n,) distance of each labelled row to its k-th nearest other one."""
        k = min(neighbors, len(here) - 1)
        return np.asarray(tree.query(here, [k + 1], workers=self.threads)[0][:, 0])  # the nearest is the row itself


def _tree(places: FloatArray) -> cKDTree:
    return cKDTree(places, leafsize=32, balanced_tree=False)


def limited(weight: FloatArray, most: float) -> FloatArray:
    """Positive weights times one factor, those above `most` lowered to it, so that the mean is 1."""
    order = np.argsort(-weight, kind="stable")
    rest = np.cumsum(weight[order][::-1])[::-1]  # sum of the weights from here on
    clipped = np.arange(len(weight))
    factor = (len(weight) - most * clipped) / rest
    fits = factor * weight[order] <= most
    return np.minimum(weight * factor[np.argmax(fits)], most)


def effective_rows(weight: FloatArray) -> float:
    """(Σw)² / Σw²: equally weighted rows that a mean over these is as certain as."""
    return float(weight.sum() ** 2 / (weight**2).sum())


def distance(values: FloatArray, weight: FloatArray, survey: FloatArray) -> float:
    """Largest difference of the cumulative distributions of weighted values and of the survey's (Kolmogorov–Smirnov)."""
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
    name, edges of the bins, share of rows in each for `survey`, `labelled` and `weighted` (what lies beyond the edges is
    in the outermost bins), and the distances `ks` and `ks_weighted` of labelled rows from the survey's. Axes of which
    nothing is known on either side are left out.
    """
    found = []
    for axis, name in enumerate(names):
        known, there = np.isfinite(labelled[:, axis]), np.isfinite(survey[:, axis])
        if not known.any() or not there.any():
            continue
        mine, w, others = labelled[known, axis], weight[known], survey[there, axis]
        low, high = np.quantile(np.concatenate([mine, others]), (0.002, 0.998))
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)

        def share(values: FloatArray, weights: FloatArray | None = None, edges: FloatArray = edges) -> list[float]:
            counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges, weights=weights)
            return [round(float(value), 6) for value in counts / counts.sum()]

        found.append(
            {
                "name": name,
                "edges": [round(float(edge), 4) for edge in edges],
                "survey": share(others),
                "labelled": share(mine),
                "weighted": share(mine, w),
                "ks": round(distance(mine, np.ones(len(mine)), others), 4),
                "ks_weighted": round(distance(mine, w, others), 4),
            }
        )
    return found
