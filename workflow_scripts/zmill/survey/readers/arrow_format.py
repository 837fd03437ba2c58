"""Arrow IPC files, which Feather (version 2) is another name of; pieces consist of complete record batches."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa

from zmill.survey.readers.base import Span, Table, windows
from zmill.survey.readers.parquet_format import describe_schema, group_spans

ENDINGS = (".arrow", ".feather", ".ipc")
MAGIC = b"ARROW1"


class Reader(Table):
    """One Arrow file."""

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        self._starts = [0]
        with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as file:
            describe_schema(self, file.schema)
            self._names = file.schema.names
        narrow = pa.ipc.IpcReadOptions(included_fields=[0])
        with pa.OSFile(str(path)) as source, pa.ipc.open_file(source, options=narrow) as file:
            for number in range(file.num_record_batches):
                self._starts.append(self._starts[-1] + file.get_batch(number).num_rows)
        self.rows: int = self._starts[-1]

    def spans(self, rows: int) -> list[Span]:
        """Runs of record batches of about `rows` rows."""
        return group_spans(self._starts, rows)

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        first, last = span or (0, self.rows)
        wanted = pa.ipc.IpcReadOptions(included_fields=[self._names.index(name) for name in columns])
        with pa.OSFile(str(self.path)) as source, pa.ipc.open_file(source, options=wanted) as file:
            for number, start in enumerate(self._starts[:-1]):
                if not first <= start < last:
                    continue
                batch = file.get_batch(number).select(columns)
                for begin, end in windows(0, batch.num_rows, batch_rows):
                    yield batch.slice(begin, end - begin)


def example(table: pa.Table, folder: Path) -> Path:
    """Write a small table in this format, for the tests that all readers share; returns the file."""
    path = folder / "s.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=37)
    return path
