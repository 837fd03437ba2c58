"""Arrow columns as NumPy arrays, and the reverse."""

from __future__ import annotations

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
