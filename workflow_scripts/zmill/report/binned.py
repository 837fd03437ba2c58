"""Errors of point estimates in bins of a quantity: bias, scatter and outliers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmill.metrics import Metrics, bootstrap, point_metrics

Floats = NDArray[np.float64]
SHOWN = ("bias", "sigma_mad", "eta_015")
DRAWS = 60
"""Bootstrap draws of each bin: enough for an error bar in a figure."""


@dataclass(frozen=True)
class Trend:
    """Metrics in bins of a quantity.

    center : (bins,) median of what the bins are of; values, low, high : metric -> (bins,) and its 68 % interval.
    """

    center: Floats
    values: dict[str, Floats]
    low: dict[str, Floats]
    high: dict[str, Floats]


def trend(
    x: Floats,
    z_phot: Floats,
    z_spec: Floats,
    blocks: NDArray[np.int64],
    bins: int = 10,
    fewest: int = 20,
    seed: int = 1,
) -> Trend | None:
    """Metrics of Δz in bins of `x` with equal numbers of rows, at least `fewest` each; (n,) all.

    blocks : block of sky of each row; the bootstrap draws blocks.

    Returns
    -------
    None where there are too few finite rows for two bins.
    """
    fine = np.flatnonzero(np.isfinite(x) & np.isfinite(z_phot) & np.isfinite(z_spec))
    bins = min(bins, len(fine) // fewest)
    if bins < 2:
        return None
    parts = np.array_split(fine[np.argsort(x[fine], kind="stable")], bins)
    values, intervals = [], []
    for part in parts:
        phot, spec = z_phot[part], z_spec[part]

        def metric(rows: NDArray[np.int64], phot: Floats = phot, spec: Floats = spec) -> Metrics:
            found = point_metrics(phot[rows], spec[rows])
            return {name: found[name] for name in SHOWN}

        values.append(metric(np.arange(len(part))))
        intervals.append(bootstrap(metric, blocks[part], DRAWS, seed))
    return Trend(
        center=np.array([np.median(x[part]) for part in parts]),
        values={name: np.array([value[name] for value in values]) for name in SHOWN},
        low={name: np.array([interval[name][0] for interval in intervals]) for name in SHOWN},
        high={name: np.array([interval[name][1] for interval in intervals]) for name in SHOWN},
    )
