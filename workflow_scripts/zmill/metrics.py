"""Every metric of redshifts and of their densities, once; float64.

Δz = (z_phot − z_spec) / (1 + z_spec). Weights, where given, weigh rows in means, quantiles and distributions alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from zmill.config import ConfigError

FloatArray = NDArray[np.float64]
Metrics = dict[str, float]

COVERAGES = (50, 68, 90, 95)
FEWEST_BLOCKS = 5
"""Smallest number of blocks of sky for confidence intervals of metrics."""
SMALLEST_SPREAD = 1e-7
"""Spread of redshifts, or of Δz, below which they count as equal: float32 cannot represent smaller differences of z near 1."""
SMALLEST_DENSITY = 1e-6
"""Floor of the log score: an impossible redshift costs 13.8 nats and not infinity."""

ON_REDSHIFT = ("mse", "mae", "rms", "r2")
"""Metrics on z itself, which the mean of a density minimizes; all others are of Δz and reported for the median."""
POINT_METRICS = (
    *(*ON_REDSHIFT, "bias", "sigma_mad", "sigma_nmad", "sigma_iqr"),
    *("eta_005", "eta_015", "eta_050", "eta_5sigma", "outlier_rail"),
)
PDF_METRICS = (
    *("pit_ks", "pit_cvm", "pit_ad", "crps", "log_score", "cde_loss"),
    *(f"coverage_{level}" for level in COVERAGES),
)
ALL = (*POINT_METRICS, *PDF_METRICS)
ENDS = ("low", "high")
INTERVALS = tuple(f"{name}_{end}" for name in ALL for end in ENDS)
"""Columns of the leaderboard that hold the ends of each metric's interval."""
SELECTABLE = {name: -1 for name in ALL if not name.startswith("coverage")} | {"r2": 1, "log_score": 1, "bias": 0}
"""Metrics that a model may be chosen by: 1 higher is better, -1 lower is better, 0 nearer to zero is better. The three
of the PIT alone are left to `check_metric`, which refuses them."""


def check_metric(name: str, where: str = "config.yaml: select.metric") -> int:
    """1 if higher is better, -1 if lower is, 0 if nearer to zero is.

    Parameters
    ----------
    where : the key that names the metric, for the message.

    Raises
    ------
    ConfigError
        If no model can be chosen by this metric; names the nearest one that can.
    """
    known = [metric for metric in SELECTABLE if not metric.startswith("pit_")]
    if name in known:
        return SELECTABLE[name]
    if name.startswith(("pit_", "coverage_")):
        raise ConfigError(
            f"{where}: {name} measures the calibration of densities and not their sharpness: the n(z) of the training rows "
            "as the density of every row would win. Choose cde_loss, crps or log_score for densities, sigma_nmad or mse for points"
        )
    close = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"{where}: there is no metric {name!r}{hint}; there are: {', '.join(known)}")


def badness(name: str, value: float) -> float:
    """A number that is lower for a better value of the metric."""
    direction = check_metric(name)
    return abs(value) if direction == 0 else -direction * value


# ---------------------------------------------------------------------------------------------------- points


def point_metrics(z_phot: FloatArray, z_spec: FloatArray, weight: FloatArray | None = None) -> Metrics:
    """Metrics of point estimates, (n,) each: those on z itself and those of Δz."""
    return redshift_metrics(z_phot, z_spec, weight) | delta_metrics(z_phot, z_spec, weight)


def redshift_metrics(z_phot: FloatArray, z_spec: FloatArray, weight: FloatArray | None = None) -> Metrics:
    """mse, mae, rms, r2: on z itself; r2 = 1 − Σ(z_phot − z_spec)² / Σ(z_spec − mean)².

    NaN: r2 if z_spec does not vary (by more than SMALLEST_SPREAD); all if no row has weight.
    """
    z_phot, z_spec, w = _arrays(z_phot, z_spec, weight)
    if not w.sum() > 0:
        return dict.fromkeys(ON_REDSHIFT, np.nan)
    error = z_phot - z_spec
    mse = np.average(error**2, weights=w)
    variance = np.average((z_spec - np.average(z_spec, weights=w)) ** 2, weights=w)
    found = {
        "mse": mse,
        "mae": np.average(np.abs(error), weights=w),
        "rms": np.sqrt(mse),
        "r2": 1 - mse / variance if variance > SMALLEST_SPREAD**2 else np.nan,
    }
    return {name: float(value) for name, value in found.items()}


def delta_metrics(z_phot: FloatArray, z_spec: FloatArray, weight: FloatArray | None = None) -> Metrics:
    """Metrics of Δz.

    bias : mean Δz. sigma_mad : 1.4826 median|Δz − median Δz|. sigma_nmad : 1.4826 median|Δz|. sigma_iqr :
    (q75 − q25) / 1.349 of Δz (Schmidt et al. 2020). eta_005, eta_015, eta_050 : fraction with |Δz| above 0.05, 0.15,
    0.5. eta_5sigma : with |Δz| > 5 sigma_mad. outlier_rail : with |Δz| > max(0.06, 3 sigma_iqr), the cut of RAIL, which
    favors models with more scatter.

    NaN: eta_5sigma if sigma_mad is 0 (or below SMALLEST_SPREAD), as where most Δz are the same; all if no row has weight.
    """
    z_phot, z_spec, w = _arrays(z_phot, z_spec, weight)
    if not w.sum() > 0:
        return {name: np.nan for name in POINT_METRICS if name not in ON_REDSHIFT}
    total = w.sum()
    delta = (z_phot - z_spec) / (1 + z_spec)
    size = np.abs(delta)
    q25, q50, q75 = quantiles(delta, (0.25, 0.5, 0.75), w)
    sigma_mad = 1.4826 * quantiles(np.abs(delta - q50), (0.5,), w)[0]
    sigma_iqr = (q75 - q25) / 1.349

    def beyond(cut: float) -> float:
        return w[size > cut].sum() / total

    found = {
        "bias": np.average(delta, weights=w),
        "sigma_mad": sigma_mad,
        "sigma_nmad": 1.4826 * quantiles(size, (0.5,), w)[0],
        "sigma_iqr": sigma_iqr,
        "eta_005": beyond(0.05),
        "eta_015": beyond(0.15),
        "eta_050": beyond(0.5),
        "eta_5sigma": beyond(5 * sigma_mad) if sigma_mad > SMALLEST_SPREAD else np.nan,
        "outlier_rail": beyond(max(0.06, 3 * sigma_iqr)),
    }
    return {name: float(value) for name, value in found.items()}


def _arrays(
    z_phot: FloatArray, z_spec: FloatArray, weight: FloatArray | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    z_phot, z_spec = np.asarray(z_phot, np.float64), np.asarray(z_spec, np.float64)
    return z_phot, z_spec, np.ones(len(z_spec)) if weight is None else np.asarray(weight, np.float64)


def quantiles(values: FloatArray, levels: tuple[float, ...], weight: FloatArray) -> FloatArray:
    """Weighted quantiles, those of `numpy.quantile` (linear) where all weights are equal; NaN if a value is.

    `numpy.quantile` itself takes four times as long for the few hundred rows of a bin, which are drawn a hundred times.
    """
    if np.isnan(values).any():
        return np.full(len(levels), np.nan)
    if np.all(weight == weight[0]):
        return np.asarray(np.interp(np.asarray(levels) * (len(values) - 1), np.arange(len(values)), np.sort(values)))
    order = np.argsort(values, kind="stable")
    w = weight[order]
    position = (np.cumsum(w) - 0.5 * w) / w.sum()
    return np.asarray(np.interp(levels, position, values[order]), np.float64)


# -------------------------------------------------------------------------------------------------- densities


@dataclass(frozen=True)
class PdfScores:
    """What each row's density scores at its true redshift; (n,) float64 each.

    pit : probability below z_spec. crps : ∫ (F(z) − [z ≥ z_spec])² dz, in redshift (Gneiting & Raftery 2007, eq. 20).
    log_score : ln f(z_spec), natural, floored. cde_loss : ∫ f² dz − 2 f(z_spec) (Izbicki & Lee 2017, eq. 7, up to a
    constant).
    """

    pit: FloatArray
    crps: FloatArray
    log_score: FloatArray
    cde_loss: FloatArray

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.int64] | slice) -> PdfScores:
        """Some of the rows."""
        return PdfScores(*(getattr(self, f.name)[rows] for f in fields(self)))

    @classmethod
    def join(cls, parts: list[PdfScores]) -> PdfScores:
        """The rows of several."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


def pdf_metrics(scores: PdfScores, weight: FloatArray | None = None) -> Metrics:
    """Means of the scores, the distances of the PIT from uniform, and the coverage of central intervals; NaN if no row has weight."""
    w = np.ones(len(scores.pit)) if weight is None else np.asarray(weight, np.float64)
    if not w.sum() > 0:
        return dict.fromkeys(PDF_METRICS, np.nan)
    found = pit_statistics(scores.pit, w)
    for name in ("crps", "log_score", "cde_loss"):
        found[name] = np.average(getattr(scores, name), weights=w)
    for level in COVERAGES:
        found[f"coverage_{level}"] = np.average(np.abs(scores.pit - 0.5) <= level / 200, weights=w)
    return {name: float(value) for name, value in found.items()}


def pit_statistics(pit: FloatArray, weight: FloatArray) -> Metrics:
    """Distances of the PIT's distribution F_n from uniform.

    pit_ks : max|F_n(u) − u| (Kolmogorov–Smirnov). pit_cvm : N ∫ (F_n − u)² du (Cramér–von Mises). pit_ad :
    N ∫ (F_n − u)² / (u (1 − u)) du (Anderson–Darling; PITs are kept 1 / 2N away from 0 and 1, where it diverges). N is
    the effective number of rows (Σw)² / Σw², so the last two grow with the sample and compare models on the same rows.
    """
    n = weight.sum() ** 2 / (weight**2).sum()
    if np.all(weight == weight[0]):
        u, reached = np.sort(pit), np.arange(1, len(pit) + 1) / len(pit)
    else:
        order = np.argsort(pit, kind="stable")
        u, reached = pit[order], np.cumsum(weight[order]) / weight.sum()
    before = np.concatenate([[0.0], reached[:-1]])
    ks = max((reached - u).max(), (u - before).max())
    levels = np.concatenate([[0.0], reached])
    levels[-1] = 1.0

    def integral(edges: FloatArray, antiderivative: Callable[[FloatArray, FloatArray], FloatArray]) -> float:
        return float((antiderivative(levels, edges[1:]) - antiderivative(levels, edges[:-1])).sum())

    cvm = n * integral(np.concatenate([[0.0], u, [1.0]]), lambda level, x: (x - level) ** 3 / 3)
    inner = np.clip(u, 0.5 / n, 1 - 0.5 / n)
    ad = n * integral(np.concatenate([[0.0], inner, [1.0]]), _anderson_darling)
    return {"pit_ks": float(ks), "pit_cvm": cvm, "pit_ad": ad}


def _anderson_darling(level: FloatArray, u: FloatArray) -> FloatArray:
    """Antiderivative of (level − u)² / (u (1 − u)); the terms that diverge at 0 and 1 have no weight there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        low = np.where(level > 0, level**2 * np.log(u), 0.0)
        high = np.where(level < 1, (1 - level) ** 2 * np.log1p(-u), 0.0)
    return low - high - u


# ------------------------------------------------------------------------------------------- parts and intervals


def bins(values: FloatArray, edges: FloatArray) -> list[NDArray[np.bool_]]:
    """(n,) masks of the rows in each bin [edge, next edge); the last bin holds its upper edge too."""
    number = np.digitize(values, edges) - 1
    number = np.where(values == edges[-1], len(edges) - 2, number)
    return [number == bin_ for bin_ in range(len(edges) - 1)]


def bootstrap(
    metric: Callable[[NDArray[np.int64]], Metrics],
    blocks: NDArray[np.int64],
    draws: int,
    seed: int,
    level: float = 0.68,
) -> dict[str, tuple[float, float]]:
    """Central intervals of metrics by drawing blocks of sky with replacement (Efron & Tibshirani 1993, §8.6).

    Rows of one block share structure and calibration, so drawing rows one by one would claim too much.

    metric : takes row numbers, gives metrics; blocks : (n,) block of each row; level : probability of the interval.

    Returns
    -------
    Low and high end by metric: NaN where it has no finite value, and for all of them with fewer than FEWEST_BLOCKS blocks,
    which would give intervals far too narrow (of one block: of no width).
    """
    rng = np.random.default_rng(seed)
    _, number, size = np.unique(blocks, return_inverse=True, return_counts=True)
    if len(size) < FEWEST_BLOCKS:
        return dict.fromkeys(metric(np.arange(len(blocks))), (np.nan, np.nan))
    order = np.argsort(number, kind="stable")
    first = np.cumsum(size) - size
    found: dict[str, list[float]] = {}
    for _ in range(draws):
        drawn = rng.integers(0, len(size), len(size))
        start, rows = first[drawn], size[drawn]
        # the rows of each drawn block, one block after the other
        place = np.arange(rows.sum()) + np.repeat(start - (np.cumsum(rows) - rows), rows)
        for name, value in metric(order[place]).items():
            found.setdefault(name, []).append(value)
    tails = (0.5 - level / 2, 0.5 + level / 2)
    intervals = {}
    for name, values in found.items():
        finite = [value for value in values if np.isfinite(value)]
        low, high = np.quantile(finite, tails) if finite else (np.nan, np.nan)
        intervals[name] = (float(low), float(high))
    return intervals
