"""The sample of a survey with positions: labelled rows with clean photometry, weighted to represent the survey."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zmill.catalog.files import read_json, write_json
from zmill.catalog.sizes import GROUP_BYTES, SAMPLE_BYTES, row_bytes, rows_of
from zmill.chunks import evenly
from zmill.config import Weights
from zmill.inputs.base import InputKind
from zmill.sample.constant import warn_of_constants
from zmill.sample.sample import LABEL_COLUMNS, SPLITS, SampleError, by_partition, take, write
from zmill.sample.target import FloatArray, Target, draw
from zmill.sample.weights import SurveyDensity, compare, effective_rows
from zmill.workflow.job import log
from zmill.workflow.warning import Warnings

Piece: TypeAlias = tuple[pa.Table, pa.ChunkedArray]
"""Rows of `clean/` with `LABEL_COLUMNS`, and the split of each."""


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
    pieces = LabelledRows.of(split, clean)
    weight = np.ones(len(pieces))
    facts: dict[str, Any] = {"method": settings.method}
    if settings.method == "lima":
        target = draw(clean, inputs[0], seed)
        position, side, names = pieces.summary(inputs[0])
        weight, found = weigh_splits(position, side, target, settings, threads)
        train = side == "train"
        facts |= found | {"axes": compare(position[train], weight[train], target.values, names)}
    write_json(out / "weights.json", facts)
    warnings = Warnings()
    warn_of_constants(inputs, pieces.training_rows(), warnings)
    return write(pieces, read_json(counts), out, weight, warnings)


@dataclass(frozen=True)
class LabelledRows:
    """The labelled rows that are used, in order on the sky, a partition at a time: clean rows with labels, and the split of each.

    rows : those of `split.parquet` that are used. read : all partitions, where together they are small; else None, and each
    iteration reads them again.
    """

    clean: Path
    rows: pa.Table
    read: list[Piece] | None = None

    @classmethod
    def of(cls, split: Path, clean: Path, most_bytes: int = SAMPLE_BYTES) -> LabelledRows:
        """Find the rows that are used, and read them if they take up at most `most_bytes` in memory.

        Raises
        ------
        SampleError
            Where no row can be used.
        """
        rows = pq.read_table(split)
        found = cls(clean, rows.filter(pc.equal(rows.column("excluded"), "")))
        first = next(iter(found), None)
        if first is None:
            raise SampleError(f"{split}: no row can be used")
        large = len(found) * row_bytes(first[0].schema) > most_bytes
        return found if large else replace(found, read=list(found))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Piece]:
        if self.read is not None:
            yield from self.read
            return
        for partition, positions in by_partition(self.rows):
            part = self.rows.take(pa.array(positions))
            clean = take(self.clean, partition, part)
            for name in LABEL_COLUMNS:
                clean = clean.append_column(self.rows.schema.field(name), part.column(name))
            yield clean, part.column("split")

    def summary(self, kind: InputKind) -> tuple[FloatArray, np.ndarray, list[str]]:
        """(n, k) summary features of an input kind, (n,) splits and (k) names of the features."""
        features, sides, names = [], [], []
        for table, side in self:
            batch = kind.read(table)
            features.append(batch.summary_features())
            sides.append(side.to_numpy().astype(str))
            names = batch.feature_names
        return np.concatenate(features), np.concatenate(sides), names

    def training_rows(self) -> pa.Table:
        """The training rows; of rows that are not in memory, those of a size of `GROUP_BYTES`, spread evenly."""
        parts = (table.filter(pc.equal(side, "train")) for table, side in self)
        if self.read is not None:
            return pa.concat_tables(parts)
        some = []
        for part in parts:
            most = rows_of(GROUP_BYTES, part.schema, len(self)) * part.num_rows // len(self)
            some.append(part.take(pa.array(evenly(part.num_rows, max(1, most)))) if part.num_rows else part)
        return pa.concat_tables(some)


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
