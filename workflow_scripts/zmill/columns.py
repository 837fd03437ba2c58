"""Arrow columns as NumPy arrays, and the reverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def floats(values: pa.Array) -> NDArray[np.floating]:
    """A column as floats: float32 and float64 as they are, all else as float64; null is NaN."""
    if pa.types.is_floating(values.type) and values.type != pa.float16():
        return np.asarray(values.to_numpy(zero_copy_only=False))
    return np.asarray(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)


def numpy_column(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """A column of a table or of a record batch; null is NaN."""
    return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)


def lists(values: NDArray[Any]) -> pa.Array:
    """(n, k) numbers as an Arrow array of lists of fixed length."""
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return pa.FixedSizeListArray.from_arrays(pa.array(native.reshape(-1)), native.shape[1])


@dataclass(frozen=True)
class Lists:
    """A column of several numbers per row: the numbers of all rows, and where those of each row begin and how many they are."""

    values: NDArray[Any]
    start: NDArray[np.int64]
    length: NDArray[np.int64]

    @classmethod
    def of(cls, column: pa.Array) -> Lists:
        """Of an Arrow list column of fixed or any length; a null row has the length 0, a null number is NaN."""
        if pa.types.is_fixed_size_list(column.type):
            size = column.type.list_size
            start = (np.arange(len(column), dtype=np.int64) + column.offset) * size
            length = np.full(len(column), size, np.int64)
        else:
            offsets = np.asarray(column.offsets, np.int64)
            start, length = offsets[:-1], np.diff(offsets)
        length = np.where(column.is_null().to_numpy(zero_copy_only=False), 0, length)
        values = column.values
        if values.null_count or not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
            values = values.cast(pa.float64())
        return cls(values.to_numpy(zero_copy_only=False), start, length)

    def rows(self, rows: NDArray[np.int64], length: int) -> NDArray[Any]:
        """(rows, length) numbers of rows of this length."""
        starts = self.start[rows]
        if len(rows) and (np.diff(starts) == length).all():
            return self.values[starts[0] : starts[0] + len(rows) * length].reshape(len(rows), length)
        return self.values[starts[:, None] + np.arange(length)]

    def row(self, number: int) -> NDArray[Any]:
        """Numbers of one row."""
        return self.values[self.start[number] : self.start[number] + self.length[number]]
