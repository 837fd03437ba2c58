"""Conversion of the answers of astroquery and pyvo (astropy tables) to Arrow tables of known columns and types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from zmill.config import nearest
from zmill.labels.base import LabelsError

MISSING = -1
"""Stands for a missing integer."""


def arrow(answer: Any, schema: pa.Schema) -> pa.Table:
    """The columns of a schema, found by their names in any case; masked numbers are NaN, masked text is empty.

    Masked integers, which are flags, become -1, because a missing flag is not the flag 0 ("no warning").

    Raises
    ------
    LabelsError
        Where columns are missing.
    ValueError
        Where a column cannot be read as its type.
    """
    found = {name.lower(): name for name in answer.colnames}
    columns = {field.name: _array(answer[found[field.name.lower()]], field.type) for field in schema}
    return pa.table(columns, schema=schema)


def refuse_missing(where: str, expected: list[str], columns: list[str]) -> None:
    """Refuse an answer that lacks requested columns; case does not matter.

    Raises
    ------
    LabelsError
        The message names the missing columns and the nearest ones.
    """
    have = {column.lower() for column in columns}
    missing = [name for name in expected if name.lower() not in have]
    if missing:
        named = ", ".join(f"{name!r}{nearest(name, columns)}" for name in missing)
        raise LabelsError(
            f"{where}: the service has no column {named}; its columns are {', '.join(columns[:30])}. "
            "The service has changed: name its columns in the source's settings, or read a file that was downloaded"
        )


def empty(schema: pa.Schema) -> pa.Table:
    """No rows."""
    return schema.empty_table()


def _array(column: Any, kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        values = np.ma.filled(np.ma.asarray(column).astype(object), "")
        return pa.array([_text(value) for value in values], pa.string())
    numbers = np.ma.asarray(column)
    if numbers.dtype.kind in "OSU":
        text = [_text(value).strip() for value in np.ma.filled(numbers.astype(object), "")]
        return pa.array([float(value) if value else np.nan for value in text], pa.float64()).cast(kind)
    if pa.types.is_floating(kind):
        return pa.array(np.ma.filled(numbers.astype(np.float64), np.nan)).cast(kind)
    return pa.array(np.ma.filled(numbers, MISSING)).cast(kind)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)
