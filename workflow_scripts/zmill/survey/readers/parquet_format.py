"""Parquet files: pieces consist of complete row groups."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from zmill.catalog.files import ReadError
from zmill.survey.readers import described
from zmill.survey.readers.base import Span, Table, plain_type, refuse_repeated, shape_of

ENDINGS = (".parquet", ".pq", ".parq")


class Reader(Table):
    """One Parquet file."""

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        if path.is_dir():
            raise ReadError(f"{path}: is a folder; name its files: {path.name}/*.parquet")
        with pq.ParquetFile(path) as file:
            describe_schema(self, file.schema_arrow)
            self.rows: int = file.metadata.num_rows
            self._starts = [0]
            for number in range(file.metadata.num_row_groups):
                self._starts.append(self._starts[-1] + file.metadata.row_group(number).num_rows)

    def spans(self, rows: int) -> list[Span]:
        """Runs of row groups of about `rows` rows."""
        return group_spans(self._starts, rows)

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        first, last = span or (0, self.rows)
        groups = [n for n, start in enumerate(self._starts[:-1]) if first <= start < last]
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            yield from file.iter_batches(batch_size=batch_rows, row_groups=groups, columns=columns, use_threads=False)


def describe_schema(table: Table, schema: pa.Schema) -> None:
    """Set the columns, types and units of a table from an Arrow schema.

    Raises
    ------
    ReadError
        Where columns have the same name.
    """
    refuse_repeated(table.path, schema.names)
    shapes = {field.name: shape for field in schema if len(shape := shape_of(field.type)) > 1}
    table.describe({field.name: plain_type(field.type) for field in schema}, shapes=shapes)
    table.describe_units(described.of_schema(schema))


def group_spans(starts: list[int], rows: int) -> list[Span]:
    """Runs of row groups of about `rows` rows, from the start of each group and the end of the last."""
    spans: list[Span] = []
    first = 0
    for start, stop in pairwise(starts):
        if stop - first > rows and start > first:
            spans.append((first, start))
            first = start
    if starts[-1] > first:
        spans.append((first, starts[-1]))
    return spans


def example(table: pa.Table, folder: Path) -> Path:
    """Write a small table in this format, for the tests that all readers share; returns the file."""
    path = folder / "s.parquet"
    pq.write_table(table, path, row_group_size=37)
    return path
