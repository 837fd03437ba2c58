"""The sample of a survey with positions: labelled rows with clean photometry, weighted to represent the survey."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zmill.catalog.files import read_json, write_json
from zmill.config import Weights
from zmill.inputs.base import InputKind
from zmill.sample.constant import warn_of_constants
from zmill.sample.sample import LABEL_COLUMNS, SPLITS, SampleError, by_partition, take, write
from zmill.sample.target import FloatArray, Target, draw
from zmill.sample.weights import SurveyDensity, compare, effective_rows
from zmill.workflow.job import log
from zmill.workflow.warning import Warnings


def build_sample(
    split: Path,
    clean: Path,
    counts: Path,
    out: Path,
    inputs: Sequence[InputKind],
    settings: Weights,
    seed: int,
    threads: int = 1,
) -> dict[str, Any]:
    """Write `train`, `valid`, `calib` and `test.parquet`, `weights.json` and, last, `sample.json`.

    Parameters
    ----------
    split : `split.parquet`.
    clean : the clean catalogue.
    counts : `split.json`, the number of rows that each cut removed.
    out : folder of the tables.
    inputs : the input kinds of the survey; the weights are computed in the summary features of the first.
    """
    table, side = read_sample(split, clean)
    weight = np.ones(table.num_rows)
    facts: dict[str, Any] = {"method": settings.method}
    if settings.method == "lima":
        target = draw(clean, inputs[0], seed)
        batch = inputs[0].read(table)
        position = batch.summary_features()
        weight, found = weigh_splits(position, np.array(side.to_pylist()), target, settings, threads)
        facts |= found | {"axes": compare_training(position, weight, side, target, batch.feature_names)}
    write_json(out / "weights.json", facts)
    warnings = Warnings()
    warn_of_constants(inputs, table.filter(pc.equal(side, "train")), warnings)
    return write(table, side, read_json(counts), out, weight, warnings)


def read_sample(split: Path, clean: Path) -> tuple[pa.Table, pa.ChunkedArray]:
    """Clean photometry and labels of the rows that are used, in order on the sky, and the split of each."""
    rows = pq.read_table(split)
    rows = rows.filter(pc.equal(rows.column("excluded"), ""))
    pieces = []
    for partition, positions in by_partition(rows):
        part = rows.take(pa.array(positions))
        photometry = take(clean, partition, part)
        for name in LABEL_COLUMNS:
            photometry = photometry.append_column(rows.schema.field(name), part.column(name))
        pieces.append((photometry, part.column("split")))
    if not pieces:
        raise SampleError(f"{split}: no row can be used")
    table = pa.concat_tables([piece for piece, _ in pieces])
    return table, pa.chunked_array([chunk for _, splits in pieces for chunk in splits.chunks], pa.string())


def weigh_splits(
    position: FloatArray, side: np.ndarray, target: Target, settings: Weights, threads: int = 1
) -> tuple[FloatArray, dict[str, Any]]:
    """Weights of labelled rows, computed in each split separately, so that they do not depend on other splits.

    Parameters
    ----------
    position : (n, k) summary features of the labelled rows (`Batch.summary_features`).
    side : (n,) the split of each.

    Returns
    -------
    (n,) weights of mean 1 in each split, and their facts for `weights.json`.
    """
    if not len(target.values):
        raise SampleError(
            f"none of the {target.read:,} rows of the survey that were read passes its cuts with measured bands: there is "
            "no distribution to weight the labelled rows to; relax the survey's cuts, or set weights.method to none"
        )
    survey = SurveyDensity(target.values, threads)
    weight, splits = np.ones(len(position)), {}
    for name in SPLITS:
        mine = side == name
        weight[mine] = survey.weigh(position[mine], settings.neighbors, settings.clip)
        splits[name] = {
            "rows": int(mine.sum()),
            "effective_rows": round(effective_rows(weight[mine]), 1),
            "largest": round(float(weight[mine].max()), 4),
            "clipped": int((weight[mine] >= settings.clip).sum()),
        }
        log.info("weights of %s: %s rows count as %.0f", name, f"{mine.sum():,}", splits[name]["effective_rows"])
    far = survey.far(position[side == "train"], settings.neighbors)
    log.info("%.1f %% of the survey's rows are far from every training row", 100 * far)
    rows = {"survey": target.survey_rows, "read": target.read, "wanted": target.wanted, "drawn": len(target.values)}
    facts = {"neighbors": settings.neighbors, "clip": settings.clip, "rows": rows, "far": round(far, 6)}
    return weight, facts | {"splits": splits}


def compare_training(
    position: FloatArray, weight: FloatArray, side: pa.ChunkedArray, target: Target, axes: list[str]
) -> list[dict[str, Any]]:
    """Compare the distributions of weighted training rows and of the survey; see `weights.compare`."""
    train = np.asarray(pc.equal(side, "train"))
    return compare(position[train], weight[train], target.values, axes)
