"""What every reader of a file format offers, and what all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa

from zmill.config import nearest

Span = tuple[int, int] | None
"""First row and first row behind a piece of a table; None for the whole of it."""


class ReadError(Exception):
    """A file that cannot be read as the table it should be."""


class Table(ABC):
    """A table in a file, read in batches: memory depends on `batch_rows` and not on the file.

    Attributes
    ----------
    path : the file, or the folder of a HATS catalogue.
    columns : the names of its columns, in the file's order.
    rows : the number of rows, or None where only reading the file tells.
    units : the units that the file gives, as it writes them, by column; a column of which it gives none is left out.
    """

    path: Path
    columns: list[str]
    rows: int | None
    units: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        """The format's own part of `batches`; types as the file has them."""

    def spans(self, rows: int) -> list[Span]:
        """Pieces of about `rows` rows that can be read independently of each other, in the order of the file."""
        if self.rows is None:
            return [None]
        return [(start, min(start + rows, self.rows)) for start in range(0, self.rows, rows)]

    def batches(
        self, columns: list[str], batch_rows: int, span: Span = None, numeric: Collection[str] = ()
    ) -> Iterator[pa.RecordBatch]:
        """Rows in the order of the file, in batches of at most `batch_rows`.

        Parameters
        ----------
        columns : which columns, each once; the batches have them in this order.
        span : one of `spans()`, or None for the whole table.
        numeric : columns to be read as float64 whatever the first rows of a text file look like.

        Raises
        ------
        ReadError
            Where a column is missing or the file is damaged.
        """
        for column in columns:
            if column not in self.columns:
                raise ReadError(f"{self.path}: there is no column {column!r}{nearest(column, self.columns)}")
        try:
            for batch in self.read(columns, batch_rows, span, numeric):
                yield _tidy(batch.select(columns), numeric)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ReadError(f"{self.path}: cannot be read: {error}") from error


def _tidy(batch: pa.RecordBatch, numeric: Collection[str]) -> pa.RecordBatch:
    """Types that the rest of zmill knows: plain strings, no dictionaries, float64 where asked for."""
    arrays = []
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
            array = array.cast(pa.string())
        if name in numeric and not pa.types.is_floating(array.type):
            array = array.cast(pa.float64(), safe=False)
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def windows(start: int, stop: int, rows: int) -> Iterator[tuple[int, int]]:
    """Consecutive pieces of `rows` rows between `start` and `stop`."""
    for first in range(start, stop, rows):
        yield first, min(first + rows, stop)
