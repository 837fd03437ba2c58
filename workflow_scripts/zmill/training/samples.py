"""The tables of the sample as a model reads them; large ones stay on disk (`zmill.inputs.stored`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from zmill.catalog.sizes import SAMPLE_BYTES, row_bytes
from zmill.catalog.sky import HEALPIX_COLUMN
from zmill.inputs.base import LabelledBatch, ModelContext, label_errors
from zmill.inputs.stored import Stored
from zmill.workflow.job import log

LABELS = ("object_id", "redshift", "redshift_err", "weight", HEALPIX_COLUMN)


@dataclass(frozen=True)
class Sample:
    """The rows of `sample/<split>.parquet`.

    labels : those of `LABELS` that the table has.
    rows : inputs, redshifts and weights.
    """

    labels: pa.Table
    rows: LabelledBatch

    @classmethod
    def of(cls, table: pa.Table, context: ModelContext) -> Sample:
        """The rows of a table in memory."""
        return cls(table.select([name for name in LABELS if name in table.schema.names]), context.labelled(table))

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, number: int) -> Sample:
        """At most so many rows."""
        return self.rows_of(np.arange(min(number, len(self))))

    def rows_of(self, numbers: NDArray[np.int64]) -> Sample:
        """The rows of these numbers."""
        return Sample(self.labels.take(pa.array(numbers)), self.rows.rows(numbers))

    def noisier(self, factor: float, rng: np.random.Generator) -> Sample:
        """The rows in memory, with added noise of so many times their errors."""
        return replace(self, rows=replace(self.rows, batch=self.rows.batch[:].noisier(factor, rng)))

    def training_rows(self, weighted: bool) -> LabelledBatch:
        """The rows to fit a model on, each of weight 1 if not `weighted`."""
        return self.rows if weighted else replace(self.rows, weight=np.ones(len(self)))


def read_samples(
    tables: Mapping[str, Path], context: ModelContext, on_disk: bool = True, most_bytes: int = SAMPLE_BYTES
) -> dict[str, Sample]:
    """Read the tables of splits for a model.

    Parameters
    ----------
    tables : split -> `sample/<split>.parquet`.
    on_disk : whether the rows of all tables stay on disk where together they are larger than `most_bytes`. Else all are in memory.
    """
    size = sum(_bytes(path, context) for path in tables.values())
    if size > most_bytes:
        log.info(
            "the labelled rows take up %.1f GB, more than %.1f: %s", size / 1e9, most_bytes / 1e9,
            "they stay on disk" if on_disk else "this type of model has all of them in memory",
        )  # fmt: skip
    stays = on_disk and size > most_bytes
    return {split: _stored(path, context) if stays else _in_memory(path, context) for split, path in tables.items()}


def _bytes(path: Path, context: ModelContext) -> int:
    """Approximate size of the inputs of a table in memory."""
    schema, wanted = pq.read_schema(path), set(context.columns())
    return pq.read_metadata(path).num_rows * row_bytes(pa.schema([field for field in schema if field.name in wanted]))


def _in_memory(path: Path, context: ModelContext) -> Sample:
    wanted = {*LABELS, *context.columns()}
    names = [name for name in pq.read_schema(path).names if name in wanted]
    return Sample.of(pq.read_table(path, columns=names), context)


def _stored(path: Path, context: ModelContext) -> Sample:
    labels = pq.read_table(path, columns=[name for name in pq.read_schema(path).names if name in LABELS])
    z, weight = (labels.column(name).to_numpy().astype(np.float64) for name in ("redshift", "weight"))
    return Sample(labels, LabelledBatch(Stored.of(path, context), z, weight, label_errors(labels)))
