"""Evaluation of a trained model on labelled rows: its predictions and all metrics."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from zmill import metrics
from zmill.catalog.sizes import BATCH_BYTES
from zmill.catalog.sky import HEALPIX_COLUMN, at_order
from zmill.chunks import row_chunks
from zmill.inputs.base import LabelledBatch
from zmill.inputs.degradation import Degradation
from zmill.metrics import FloatArray, Metrics, PdfScores
from zmill.networks.device import sent
from zmill.pdf import conformal, points
from zmill.pdf.conformal import Conformal
from zmill.pdf.grid import Grid
from zmill.pdf.scores import pdf_scores
from zmill.training.missing_data import SPLITS
from zmill.training.reliability import reliability
from zmill.training.samples import Sample
from zmill.training.trained import TrainedModel

BATCH_CPU, BATCH_GPU = 4096, 65_536
"""Most rows predicted at a time: few enough for the cache of a CPU, many enough to occupy a GPU."""
BINS = 10
DRAWS = 100
INTERVAL = 0.68
PATTERNS = 20
POINTS = ("z_mode", "z_best", "z_mean", "z_median")
SCORES = ("pit", "crps", "log_score", "cde_loss")
BINNED = ("bias", "sigma_mad", "eta_015", "crps")
"""Metrics with a confidence interval in every bin."""
TEST_ROWS = 2_000
"""Most rows of a split in the missing-band tests, which predict all of them once for each pattern."""


# ------------------------------------------------------------------------------------------------ predictions


@dataclass(frozen=True)
class Predicted:
    """Predictions of a model for labelled rows.

    columns : name -> (n,) point estimates, odds, ends of conformal intervals and `ood`.
    scores : scores of the densities.
    density : (grid.size,) sum of all densities.
    seconds : time that densities and point estimates took.
    """

    columns: dict[str, NDArray[Any]]
    scores: PdfScores
    density: FloatArray
    seconds: float


def predict_rows(trained: TrainedModel, rows: LabelledBatch) -> Predicted:
    """Predict labelled rows and score their densities."""
    grid = trained.context.grid
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in (*points.COLUMNS, *conformal.COLUMNS, "ood")}
    scores: list[PdfScores] = []
    total = np.zeros(grid.size)
    seconds = 0.0
    size = rows.batch.rows_in(BATCH_BYTES, BATCH_CPU if trained.model.device.type == "cpu" else BATCH_GPU)
    for part in row_chunks(max(len(rows), 1), size):
        batch = rows.batch[part]
        started = time.perf_counter()
        density, levels, ood, own = trained.predict_all(batch)
        found, z = points.summarize_with(density, grid, points.LEVELS, levels, trained.odds.width)
        found["odds"] = torch.where(sent(own, density.device), trained.odds(found["odds"]), found["odds"])
        found |= dict(zip(conformal.COLUMNS, z[:, len(points.LEVELS) :].unbind(1), strict=True))
        estimates = {name: value.cpu().numpy() for name, value in found.items()}
        seconds += time.perf_counter() - started
        for name, values in (estimates | {"ood": ood}).items():
            columns[name].append(values)
        scores.append(pdf_scores(density, grid, rows.z[part]))
        total += density.double().sum(0).cpu().numpy()
    joined = {name: np.concatenate(values) for name, values in columns.items()}
    return Predicted(joined, PdfScores.join(scores), total, seconds)


def predict_sample(
    trained: TrainedModel, sample: Sample, split: str, block_order: int
) -> tuple[pa.Table, FloatArray, float]:
    """Predict the labelled rows of a split.

    Parameters
    ----------
    sample : rows of `sample/<split>.parquet`, as the model reads them.
    block_order : HEALPix order of the sky blocks, for tables that have positions.

    Returns
    -------
    Predictions (see docs/columns.md, `evaluation/<model>/predictions.parquet`), the stacked n(z) on the model's grid, and the time
    in seconds that densities and point estimates took.
    """
    labels, labelled = sample.labels, sample.rows
    found = predict_rows(trained, labelled)
    table = {
        "object_id": labels.column("object_id"),
        "split": pa.array([split] * len(sample), pa.string()),
        "redshift": pa.array(labelled.z),
        **{name: pa.array(values) for name, values in found.columns.items()},
        **{name: pa.array(getattr(found.scores, name)) for name in SCORES},
        "brightness": pa.array(labelled.batch.brightness()),
        **{name: pa.array(mask) for name, mask in labelled.batch.states().items()},
        "weight": pa.array(labelled.weight),
        "block": pa.array(_blocks(labels, block_order)),
    }
    return pa.table(table), found.density / max(len(sample), 1), found.seconds


def _blocks(labels: pa.Table, order: int) -> NDArray[np.int64]:
    """(n,) HEALPix pixel of the sky block of each row; without positions each row is its own block."""
    if HEALPIX_COLUMN not in labels.schema.names:
        return np.arange(len(labels), dtype=np.int64)
    return np.asarray(at_order(labels.column(HEALPIX_COLUMN).to_numpy(), order), np.int64)


# ---------------------------------------------------------------------------------------------------- metrics


class Rows:
    """Predictions of labelled rows as arrays, and the metrics of any subset of them.

    Parameters
    ----------
    column : name -> (n,) the columns of `predictions.parquet` that metrics are computed from.
    """

    def __init__(self, column: dict[str, NDArray[Any]]) -> None:
        self.column = column
        self.z_spec = column["redshift"].astype(np.float64)
        self.weight = column["weight"].astype(np.float64)
        self.scores = PdfScores(*(column[name] for name in SCORES))

    @classmethod
    def of(cls, predictions: pa.Table) -> Rows:
        """Rows of `predictions.parquet`."""
        names = [name for name in predictions.schema.names if name not in ("object_id", "split")]
        return cls({name: predictions.column(name).to_numpy(zero_copy_only=False) for name in names})

    def __len__(self) -> int:
        return len(self.z_spec)

    def point(self, name: str) -> Metrics:
        """Point metrics of one estimate."""
        return metrics.point_metrics(self.column[name], self.z_spec)

    def board(self, rows: NDArray[Any] | slice = slice(None), weighted: bool = False) -> Metrics:
        """The leaderboard's metrics: z of the mean, Δz of the median, and the densities."""
        z_spec, weight = self.z_spec[rows], self.weight[rows] if weighted else None
        found = metrics.redshift_metrics(self.column["z_mean"][rows], z_spec, weight)
        found |= metrics.delta_metrics(self.column["z_median"][rows], z_spec, weight)
        return found | metrics.pdf_metrics(self.scores[rows], weight)

    def binned(self, rows: NDArray[Any]) -> Metrics:
        """The metrics that have an interval in every bin."""
        found = metrics.delta_metrics(self.column["z_median"][rows], self.z_spec[rows])
        return {**found, "crps": float(self.scores.crps[rows].mean())}


def evaluate_split(
    predictions: pa.Table, states: Sequence[str], parts: Sequence[str], edges: dict[str, FloatArray], seed: int
) -> dict[str, Any]:
    """Every metric of the predictions of one split, JSON-ready (see docs/metrics.md).

    states, parts : names of the columns of states, and of their bits (`Batch.states`, `Batch.parts`).
    edges : edges of the bins in `brightness`, `redshift` and `z_median`.
    """
    rows = Rows.of(predictions)
    if not len(rows):
        return {"n": 0}
    blocks = rows.column["block"]

    def intervals(weighted: bool = False) -> dict[str, Any]:
        found = metrics.bootstrap(partial(rows.board, weighted=weighted), blocks, DRAWS, seed, INTERVAL)
        return {"level": INTERVAL, "draws": DRAWS, "blocks": len(np.unique(blocks)), "metrics": found}

    found: dict[str, Any] = {
        "n": len(rows),
        "board": rows.board(),
        "points": {name: rows.point(name) for name in POINTS},
        "intervals": intervals(),
        "binned": {name: _binned(rows, name, edges[name], seed) for name in edges},
        "patterns": _patterns(rows, states, parts),
        "ood": {name: _some(rows, mask) for name, mask in _by_ood(rows).items()},
    }
    if rows.weight.min() != rows.weight.max():
        found["weighted"] = {
            "effective_rows": conformal.effective(rows.weight),
            "board": rows.board(weighted=True),
            "intervals": intervals(weighted=True),
        }
    return jsonable(found)


def stated_coverage(predictions: pa.Table, intervals: Conformal) -> list[dict[str, Any]]:
    """Coverage of the conformal intervals: of all rows, by bin of brightness, and of rows that are out of distribution.

    Each entry has `rows` (`all`, `bin`, `no brightness` or `out of distribution`), `low` and `high` in brightness (None: open), `n`, and by
    coverage the fraction `found` of rows whose interval has the true redshift, its binomial standard `error` and the median `width` of the intervals in redshift.
    """
    column = {name: predictions.column(name).to_numpy() for name in ("redshift", "weight", "brightness")}
    end = {name: predictions.column(name).to_numpy() for name in conformal.COLUMNS}
    # Rounded like the ends, so that a redshift at the end of the grid is within an interval that reaches to it.
    z = column["redshift"].astype(np.float32)
    number = intervals.bin_of(torch.from_numpy(column["brightness"].copy())).numpy()
    edges = [None, *intervals.edges, None]
    parts: list[tuple[str, Any, Any, NDArray[np.bool_]]] = [("all", None, None, np.ones(len(z), bool))]
    parts += [("bin", low, high, number == bin_) for bin_, (low, high) in enumerate(pairwise(edges))]
    parts += [("no brightness", None, None, number == intervals.bins - 1)]
    parts += [("out of distribution", None, None, predictions.column("ood").to_numpy(zero_copy_only=False))]
    found = []
    for name, low, high, rows in parts:
        entry: dict[str, Any] = {"rows": name, "low": low, "high": high, "n": int(rows.sum())}
        weight = column["weight"][rows]
        for coverage in conformal.COVERAGES if weight.sum() > 0 else ():
            left, right = (end[name][rows] for name in conformal.ends(coverage))
            fraction = np.average((left <= z[rows]) & (z[rows] <= right), weights=weight)
            error = np.sqrt(fraction * (1 - fraction) / conformal.effective(weight))
            entry[f"{coverage:.0%}"] = {"found": fraction, "error": error, "width": np.median(right - left)}
        found.append(entry)
    return found


def bin_edges(predictions: pa.Table, grid: Grid) -> dict[str, FloatArray]:
    """Edges of the bins, computed from the labelled rows alone, so that they are the same for all models."""
    found = {}
    for name in ("brightness", "redshift"):
        values = predictions.column(name).to_numpy().astype(np.float64)
        values = values[np.isfinite(values)]
        if len(values):
            found[name] = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)))
    z_phot = found["redshift"].copy()
    z_phot[[0, -1]] = min(grid.z_min, z_phot[0]), max(grid.z_max, z_phot[-1])
    return {name: edges for name, edges in (found | {"z_median": z_phot}).items() if len(edges) > 1}


def _binned(rows: Rows, name: str, edges: FloatArray, seed: int) -> list[dict[str, Any]]:
    masks = metrics.bins(rows.column[name].astype(np.float64), edges)
    return [
        {"low": float(low), "high": float(high), **_some(rows, mask), **_intervals(rows, mask, seed)}
        for low, high, mask in zip(edges[:-1], edges[1:], masks, strict=True)
    ]


def _intervals(rows: Rows, mask: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    """The number of sky blocks in a bin and the intervals of `BINNED`, computed as for all rows of the split."""
    inside = np.flatnonzero(mask)
    blocks = rows.column["block"][inside]
    if not len(inside):
        return {"blocks": 0, "intervals": None}

    def metric(drawn: NDArray[np.int64]) -> Metrics:
        found = rows.binned(inside[drawn])
        return {name: found[name] for name in BINNED}

    return {
        "blocks": len(np.unique(blocks)),
        "intervals": metrics.bootstrap(metric, blocks, DRAWS, seed, INTERVAL),
    }


def _some(rows: Rows, mask: NDArray[np.bool_]) -> dict[str, Any]:
    return {"n": int(mask.sum()), "board": rows.board(mask) if mask.any() else None}


def _by_ood(rows: Rows) -> dict[str, NDArray[np.bool_]]:
    outside = rows.column["ood"].astype(bool)
    return {"inside": ~outside, "outside": outside}


def _patterns(rows: Rows, columns: Sequence[str], parts: Sequence[str]) -> list[dict[str, Any]]:
    """Metrics by natural pattern of missing data, the most frequent first; parts that are not named are measured."""
    keys = list(zip(*(rows.column[state].tolist() for state in columns), strict=True)) or [()] * len(rows)
    found = []
    for key, _ in Counter(keys).most_common(PATTERNS):
        states = list(zip(columns, key, strict=True))
        mask = np.logical_and.reduce(
            [np.ones(len(rows), bool), *(rows.column[state] == bits for state, bits in states)]
        )
        names = {state: [part for bit, part in enumerate(parts) if bits >> bit & 1] for state, bits in states}
        found.append({**names, **_some(rows, mask)})
    return found


def missing_data_metrics(
    trained: TrainedModel, sample: Sample, degradation: Degradation, seed: int
) -> list[dict[str, Any]]:
    """Metrics of the missing-data tests by pattern; patterns that change no row are left out.

    sample : rows of `sample/<split>.parquet`; at most `TEST_ROWS` of them are drawn, the same for every model.
    """
    drawn = np.sort(np.random.default_rng(seed).permutation(len(sample))[:TEST_ROWS])
    rows = sample.rows.rows(drawn).in_memory()
    found = []
    for pattern in degradation.tests(rows.batch):
        mask = degradation.concerns(rows.batch, pattern)
        if not mask.any():
            continue
        lost = LabelledBatch(degradation.apply(rows.batch[mask], pattern), rows.z[mask], rows.weight[mask])
        predicted = predict_rows(trained, lost)
        column = {name: predicted.columns[name] for name in ("z_mean", "z_median")}
        column |= {name: getattr(predicted.scores, name) for name in SCORES}
        board = Rows({**column, "redshift": lost.z, "weight": lost.weight}).board()
        found.append({"pattern": pattern.name, "n": len(lost), "board": board})
    return found


def jsonable(content: Any) -> Any:
    """The content for JSON: null for numbers that are not finite, lists for arrays and tuples."""
    if isinstance(content, dict):
        return {str(key): jsonable(value) for key, value in content.items()}
    if isinstance(content, list | tuple | np.ndarray):
        return [jsonable(value) for value in content]
    if isinstance(content, float | np.floating):
        return float(content) if math.isfinite(content) else None
    return content.item() if isinstance(content, np.generic) else content


# -------------------------------------------------------------------------------------------------- everything


def evaluate(
    trained: TrainedModel,
    held_out: TrainedModel,
    samples: dict[str, Sample],
    block_order: int,
    seed: int,
    degradation: Degradation,
) -> tuple[pa.Table, dict[str, Any]]:
    """Predict the samples of all splits and compute their metrics.

    trained : the model that is applied to the survey, evaluated on the test rows, on which it was not trained.
    held_out : the model fitted on the training rows alone, evaluated on validation and calibration rows.
    samples : split -> rows of `sample/<split>.parquet`, as both models read them.
    degradation : removal of parts of the data, for the missing-data tests.

    Returns
    -------
    The predictions of all splits, and the content of `metrics.json`.
    """
    first = next(sample for sample in samples.values() if len(sample))
    predict_sample(trained, first.first(256), "warm-up", block_order)
    nothing = first.rows.batch[:0]
    judged = {split: trained if split == "test" else held_out for split in samples}
    found = {split: predict_sample(judged[split], sample, split, block_order) for split, sample in samples.items()}
    predictions = pa.concat_tables([table for table, _, _ in found.values()])
    edges = bin_edges(predictions, trained.context.grid)
    splits = {
        split: evaluate_split(table, tuple(nothing.states()), nothing.parts, edges, seed)
        | {"n_of_z": {"stacked": [round(float(value), 6) for value in stacked]}}
        | {"stated_coverage": stated_coverage(table, trained.conformal)}
        | ({"reliability": reliability(table, judged[split].odds)} if len(table) else {})
        for split, (table, stacked, _) in found.items()
    }
    for split in SPLITS:
        if split in samples:
            splits[split]["made"] = missing_data_metrics(judged[split], samples[split], degradation, seed)
    grid = trained.context.grid
    about = {
        "model": trained.name,
        "type": trained.type,
        "seed": trained.context.seed,
        "grid": {"z_min": grid.z_min, "z_max": grid.z_max, "size": grid.size},
        "inputs": [kind.name for kind in trained.context.inputs],
        "brightness": trained.context.inputs[0].brightness,
        "device": str(trained.model.device),
        "threads": torch.get_num_threads(),
        "train_seconds": trained.facts["train_seconds"] + trained.facts.get("refit_seconds", 0.0),
        "rows_per_s": round(len(predictions) / max(sum(seconds for _, _, seconds in found.values()), 1e-9), 1),
        "splits": splits,
    }
    return predictions, jsonable(about)
