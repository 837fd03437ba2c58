"""Sizes of rows in bytes, so that memory is bounded whatever a row is: 100 bytes of photometry or 60 kB of a spectrum."""

from __future__ import annotations

import pyarrow as pa

GROUP_BYTES = 128 << 20
"""Largest size of a row group in memory in bytes."""
BATCH_BYTES = 64 << 20
"""Largest size of the rows that are converted, or that a model is given, at a time in bytes."""
SAMPLE_BYTES = 2 << 30
"""Largest size of the labelled rows of a job in memory in bytes, an eighth of the memory of a small workstation. Of larger
samples, a job has only some rows in memory at a time."""
VARIABLE = 24
"""Bytes that a string or an element list of unknown length counts as."""


def row_bytes(schema: pa.Schema) -> int:
    """Approximate size of a row in memory in bytes."""
    return max(1, sum(_bytes(field.type) for field in schema))


def rows_of(size: int, schema: pa.Schema, most: int) -> int:
    """Number of rows that take up about `size` bytes: at least 1, at most `most`."""
    return max(1, min(most, size // row_bytes(schema)))


def _bytes(kind: pa.DataType) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _bytes(kind.value_type)
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:  # strings and lists have no width
        return VARIABLE
