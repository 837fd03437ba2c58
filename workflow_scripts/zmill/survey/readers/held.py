"""Tables that a library reads completely into memory, as NumPy arrays."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from zmill.survey.readers.base import Span, Table, decoded, windows

ALONE = threading.Lock()
"""Lock while astropy reads text: warning filters are global, and several threads read headers."""


class Held(Table):
    """A table whose columns are held in memory, as one piece, because a second piece would read the file again."""

    _arrays: dict[str, np.ma.MaskedArray]

    def hold(self, arrays: Mapping[str, Any], rows: int, units: Mapping[str, str]) -> None:
        """Set the columns, in the file's order; columns of objects other than text cannot be read."""
        self.rows = rows
        self._arrays, types, unreadable, shapes = {}, {}, {}, {}
        for name, array in arrays.items():
            try:
                types[name] = arrow(array[:0] if array.dtype.kind != "O" else array[:1000]).type
                self._arrays[name] = array
                if array.ndim > 2:
                    shapes[name] = array.shape[1:]
            except (pa.ArrowException, TypeError, AttributeError):
                unreadable[name] = (
                    f"holds {array.dtype} values in its rows, which zmill does not read: write them as columns"
                )
        self.describe(types, unreadable, shapes)
        self.describe_units(units)

    def spans(self, rows: int) -> list[Span]:
        """One piece."""
        return [None] if self.rows else []

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        first, last = span or (0, self.rows or 0)
        for start, stop in windows(first, last, batch_rows):
            # Rows without any value do not tell the type of a column.
            arrays = [arrow(self._arrays[name][start:stop]).cast(self.types[name]) for name in columns]
            yield pa.RecordBatch.from_arrays(arrays, names=columns)


def arrow(values: Any) -> pa.Array:
    """A NumPy column of one or of several values per row as an Arrow array, flat per row; masked values are null.

    Raises
    ------
    TypeError
        Where it has objects that are no text.
    """
    mask, data = np.ma.getmaskarray(values), np.ma.getdata(values)
    if data.ndim > 1:
        flat = arrow(np.ma.masked_array(data, mask).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, math.prod(data.shape[1:]))
    if data.dtype.kind in "OSU":
        return _of_objects(data.tolist(), mask)
    if data.dtype.kind not in "biuf":
        raise TypeError(f"values of type {data.dtype}")
    return pa.array(data.astype(data.dtype.newbyteorder("="), copy=False), mask=mask)


def _of_objects(values: list[Any], mask: np.ndarray) -> pa.Array:
    if mask.ndim == 1 and any(isinstance(value, np.ndarray | list) for value in values):
        rows = [None if m or v is None else v.tolist() for v, m in zip(values, mask.tolist(), strict=True)]
        kind = next((v.dtype for v in values if isinstance(v, np.ndarray) and v.dtype.kind in "biuf"), None)
        return pa.array(rows, pa.list_(pa.from_numpy_dtype(kind.newbyteorder("="))) if kind is not None else None)
    if not all(isinstance(value, bytes | str | None) for value in values):
        raise TypeError("objects that are no text")
    return pa.array([None if m else decoded(v) for v, m in zip(values, mask.tolist(), strict=True)], pa.string())
