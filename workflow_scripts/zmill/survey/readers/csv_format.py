"""Comma-separated text (`.tsv`: tabs) with a header line, read by pyarrow block by block; `.gz` is unpacked on the way."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from zmill.survey.readers.base import ReadError, Span, Table, windows

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
BLOCK_BYTES = 8 << 20
"""Text that is parsed at a time; column types are told from the first block."""
MISSING = [*pyarrow.csv.ConvertOptions().null_values, "--", "None"]
"""What stands for a missing number; `--` is how astropy prints one."""


class Reader(Table):
    """One CSV file; only reading it tells the number of rows, and it is one piece."""

    rows = None

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        self._delimiter = "\t" if ".tsv" in path.name.lower() else ","
        with self._open({}, None, 1 << 20) as reader:
            self.columns = reader.schema.names
            self._types = dict(zip(reader.schema.names, reader.schema.types, strict=True))

    def _open(
        self, types: dict[str, pa.DataType], columns: list[str] | None, block: int
    ) -> pyarrow.csv.CSVStreamingReader:
        return pyarrow.csv.open_csv(
            pa.input_stream(str(self.path), compression="gzip" if self.path.suffix == ".gz" else None),
            read_options=pyarrow.csv.ReadOptions(block_size=block, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(delimiter=self._delimiter),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=types, include_columns=columns, null_values=MISSING
            ),
        )

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        types = {
            name: pa.float64()
            if name in numeric and not pa.types.is_boolean(kind)
            else pa.string()
            if pa.types.is_null(kind)
            else kind
            for name, kind in self._types.items()
            if name in columns
        }
        try:
            with self._open(types, columns, BLOCK_BYTES) as reader:
                for block in reader:
                    for start, stop in windows(0, block.num_rows, batch_rows):
                        yield block.slice(start, stop - start)
        except pa.ArrowInvalid as error:
            raise ReadError(f"{self.path}: cannot be read: {self._explain(str(error))}") from error

    def _explain(self, message: str) -> str:
        """pyarrow's message, with a value that does not fit its column named as a person would look it up."""
        found = re.search(
            r"CSV column #(\d+): Row #(\d+): CSV conversion error to (\w+): invalid value '(.*)'", message
        )
        if not found:
            return message
        column, line, kind, value = found.groups()
        expected = {"double": "a number", "bool": "true or false"}.get(kind, f"{kind}, as in the first rows")
        return (
            f"line {line}: column {self.columns[int(column)]!r} holds {value!r}, expected {expected}; a missing value is "
            "written as nothing, NaN, null, -- or a number under `sentinels`"
        )
