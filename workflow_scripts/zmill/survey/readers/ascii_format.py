"""Columns of text between blanks, without a header: they are named col1, col2, ... and `#` starts a comment."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa

from zmill.survey.readers.base import Span, Table

ENDINGS = (".dat", ".txt", ".ascii", ".dat.gz", ".txt.gz")


class Reader(Table):
    """One text file; only reading it tells the number of rows, and it is one piece."""

    rows = None

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        self.columns = [f"col{n + 1}" for n in range(pd.read_csv(path, nrows=100, **self._layout()).shape[1])]

    def _layout(self) -> dict[str, object]:
        return {"sep": r"\s+", "header": None, "comment": "#", "na_values": ["--"]}

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        number = {name: n for n, name in enumerate(self.columns)}
        with pd.read_csv(
            self.path,
            chunksize=batch_rows,
            usecols=sorted(number[name] for name in columns),
            dtype={number[name]: "float64" for name in columns if name in numeric},
            **self._layout(),
        ) as chunks:
            for chunk in chunks:
                arrays = [pa.Array.from_pandas(chunk[number[name]]) for name in columns]
                yield pa.RecordBatch.from_arrays(arrays, names=columns)
