"""Purity and completeness of the rows with high odds, and the calibration of the odds, on labelled rows.

A redshift is right where |z_mode − z| < width (1 + z). Of the rows with odds above a limit, the purity is the fraction whose redshift is
right, and the share is their fraction of all rows; the completeness is the fraction of all right redshifts that are among them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.pdf.odds import Odds

PURITIES = (0.999, 0.99, 0.95, 0.9)
"""Purities for which the share of rows is given."""
CURVE = 200
"""Most points of the curve."""
BINS = 10

FloatArray = NDArray[np.float64]


def reliability(predictions: pa.Table, odds: Odds) -> dict[str, Any]:
    """Reliability of labelled rows, JSON-ready.

    Parameters
    ----------
    predictions : rows of `predictions.parquet`, at least one.
    odds : the odds that they were predicted with.

    Returns
    -------
    `width`; `right` and `odds`, the fraction of right redshifts and the mean odds of all rows; `cuts`, for each of `PURITIES` the
    rows that are `stated` to have that purity, by their mean odds, and the most rows with which it is `measured`: `odds` (the lowest),
    `share`, `purity`, its binomial standard `error` and `completeness`, null without rows; `curve`, lists of the same by falling odds,
    with the `stated` purity; `bins` of equal numbers of rows by odds: `low`, `high`, `n`, mean `odds`, fraction `right` and its `error`;
    and, where rows have weights, `weighted`: `right`, `odds` and `cuts` with them.
    """
    column = {name: predictions.column(name).to_numpy() for name in ("z_mode", "redshift", "odds", "weight")}
    right = odds.right(column["z_mode"], column["redshift"]).astype(np.float64)
    stated = column["odds"].astype(np.float64)
    weight, same = column["weight"].astype(np.float64), np.ones(len(stated))
    curve = _curve(stated, right, same)
    points = np.unique(np.linspace(0, len(curve["odds"]) - 1, CURVE).round().astype(int))
    weighted = weight.min() != weight.max() and weight.sum() > 0
    return {
        "width": odds.width,
        **_summary(stated, right, same),
        "curve": {name: values[points] for name, values in curve.items()},
        "bins": _bins(stated, right),
        **({"weighted": _summary(stated, right, weight)} if weighted else {}),
    }


def _summary(stated: FloatArray, right: FloatArray, weight: FloatArray) -> dict[str, Any]:
    curve = _curve(stated, right, weight)
    return {
        "right": np.average(right, weights=weight),
        "odds": np.average(stated, weights=weight),
        "cuts": [
            {"purity": purity, "stated": _cut(curve, "stated", purity), "measured": _cut(curve, "purity", purity)}
            for purity in PURITIES
        ],
    }


def _curve(stated: FloatArray, right: FloatArray, weight: FloatArray) -> dict[str, FloatArray]:
    """Share, purity, stated purity and completeness of the rows with odds of at least each value, from the highest; equal odds are
    one point."""
    order = np.argsort(-stated, kind="stable")
    odds, w, hit = stated[order], weight[order], right[order]
    last = np.append(odds[1:] != odds[:-1], True)
    kept, hits, promised, squares = (np.cumsum(part)[last] for part in (w, w * hit, w * odds, w**2))
    known = kept > 0
    kept, hits, promised, squares = (part[known] for part in (kept, hits, promised, squares))
    purity = hits / kept
    return {
        "odds": odds[last][known],
        "share": kept / weight.sum(),
        "purity": purity,
        "stated": promised / kept,
        "error": np.sqrt(purity * (1 - purity) * squares) / kept,
        "completeness": hits / max(hits[-1], np.finfo(float).tiny),
    }


def _cut(curve: dict[str, FloatArray], by: str, purity: float) -> dict[str, float] | None:
    """The most rows whose `purity` or `stated` purity is at least this; None without any."""
    enough = np.flatnonzero(curve[by] >= purity)
    if not len(enough):
        return None
    return {name: float(curve[name][enough[-1]]) for name in ("odds", "share", "purity", "error", "completeness")}


def _bins(stated: FloatArray, right: FloatArray) -> list[dict[str, float]]:
    """Measured fraction of right redshifts in bins of odds."""
    order = np.argsort(stated, kind="stable")
    found = []
    for first, last in pairwise(np.linspace(0, len(order), BINS + 1).round().astype(int)):
        rows = order[first:last]
        if len(rows):
            fraction = right[rows].mean()
            error = np.sqrt(fraction * (1 - fraction) / len(rows))
            about = {"low": stated[rows[0]], "high": stated[rows[-1]], "n": len(rows)}
            found.append({**about, "odds": stated[rows].mean(), "right": fraction, "error": error})
    return found
