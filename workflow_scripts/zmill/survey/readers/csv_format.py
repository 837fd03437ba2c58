"""Text with a header line and values between commas, tabs, semicolons or bars.

A value may be a list of numbers in parentheses or brackets, as the Gaia archive writes spectra: `"(0.1, 0.2, null)"`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from zmill.catalog.files import ReadError
from zmill.survey.readers.base import Span
from zmill.survey.readers.text import MISSING, TextTable

ENDINGS = (".csv", ".tsv")
NUMBERS = pa.list_(pa.float64())
_NUMBER = r"([-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|nan|NaN|null|-?inf|-?Infinity)"
LIST = rf"^[(\[]\s*{_NUMBER}(\s*,\s*{_NUMBER})+\s*[)\]]$"
"""Pattern of a list of numbers."""


class Reader(TextTable):
    """One CSV file."""

    def __init__(self, path: Path, group: str | None) -> None:
        super().__init__(path, aligned=False)
        if lists := {name for name, kind in self.types.items() if kind == pa.string() and self._has_lists(name)}:
            self.describe({name: NUMBERS if name in lists else kind for name, kind in self.types.items()})

    def _has_lists(self, column: str) -> bool:
        """Whether all values of a column in the first rows are lists of numbers."""
        text, _ = self._tidied("\n".join(line for _, line in self._sample).encode(), 0)
        values = _present(self._parse(text, [column], ()).column(0)).drop_null()
        return len(values) > 0 and bool(pc.all(pc.match_substring_regex(values, LIST)).as_py())

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        lists = [number for number, name in enumerate(columns) if self.types[name] == NUMBERS]
        for batch in super().read(columns, batch_rows, span, numeric):
            arrays = batch.columns
            for number in lists:
                arrays[number] = self._numbers(columns[number], arrays[number])
            yield pa.RecordBatch.from_arrays(arrays, names=columns) if lists else batch

    def _numbers(self, column: str, values: pa.Array) -> pa.Array:
        values = _present(values)
        wrong = values.filter(pc.invert(pc.match_substring_regex(values, LIST)))
        if len(wrong):
            raise ReadError(
                f"{self.path}: column {column!r} holds {wrong[0].as_py()[:60]!r}, expected a list of numbers such as (0.1, 0.2), as in "
                "the first rows"
            )
        split = pc.split_pattern(pc.utf8_trim(values, "()[] "), ",")
        texts = _present(pc.utf8_trim_whitespace(split.values))
        lists = pa.ListArray.from_arrays(split.offsets, texts.cast(pa.float64()))
        return pc.if_else(values.is_valid(), lists, pa.scalar(None, NUMBERS))


def _present(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Texts with null for those that mean a missing value."""
    return pc.if_else(pc.is_in(texts, pa.array(MISSING)), pa.scalar(None, pa.string()), texts)


def example(table: pa.Table, folder: Path) -> Path:
    """Write a small table in this format, for the tests that all readers share; returns the file."""
    path = folder / "s.csv"
    pyarrow.csv.write_csv(table, path)
    return path
