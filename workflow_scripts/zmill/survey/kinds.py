"""The type of a column over all files of the survey: identifiers and `columns.extra`.

The first rows determine the types of text files. A later value that does not fit widens the type for all rows
(`TypeChanged`): from integers to floats (3.5) to text (J12). A column without values fits every type.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zmill.catalog.files import ReadError
from zmill.survey.readers.base import EXACT, exact_text
from zmill.survey.readers.text import MISSING, WHOLE

ROUNDED = r"^-?\d\.\d+[eE]\+?\d{2}$"
"""Pattern of an identifier of many digits that was rounded to a float: 1.2376619e+18."""


class TypeChanged(Exception):
    """A value does not fit the type of its column: all rows must be read with another type.

    Attributes
    ----------
    column, kind : the column, and the name of the type: int64, float32 or string.
    file : the file with the value.
    """

    def __init__(self, column: str, kind: str, file: str = "") -> None:
        super().__init__(column, kind, file)
        self.column, self.kind, self.file = column, kind, file

    @property
    def type(self) -> pa.DataType:
        """The type."""
        return {"int64": pa.int64(), "float32": pa.float32(), "string": pa.string()}[self.kind]


def id_type(types: Iterable[pa.DataType]) -> pa.DataType:
    """The type of identifiers that have these types in the files: int64 where all are numbers, else string."""
    return pa.int64() if all(_is_empty(kind) or _is_number(kind) for kind in types) else pa.string()


def extra_type(types: Iterable[pa.DataType]) -> pa.DataType:
    """The type of an extra column: string, int64 (for integers of 32 and 64 bits, which float32 would round) or float32."""
    values = [kind for kind in types if not _is_empty(kind)]
    if any(not _is_number(kind) and not pa.types.is_boolean(kind) for kind in values):
        return pa.string()
    wide = [pa.types.is_integer(kind) and kind.bit_width > 16 for kind in values]
    return pa.int64() if wide and all(wide) else pa.float32()


def is_number(kind: pa.DataType) -> bool:
    """Whether values of a type are accepted as numbers."""
    return _is_number(kind) or pa.types.is_boolean(kind) or _is_empty(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _is_empty(kind: pa.DataType) -> bool:
    return pa.types.is_null(kind)


def identifiers(values: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    """Identifiers as int64 or string, exactly; null where there is none.

    Raises
    ------
    TypeChanged
        Where int64 is requested and a value is no integer.
    ReadError
        Where they are rounded numbers, which do not identify objects.
    """
    if pa.types.is_floating(values.type):
        numbers = values.to_numpy(zero_copy_only=False)
        numbers = numbers[~np.isnan(numbers)]
        wrong = (np.abs(numbers) > EXACT[values.type]) | (numbers != np.floor(numbers))
        if wrong.any():
            raise ReadError(_rounded(name, repr(float(numbers[wrong][0]))))
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values).cast(pa.int64())
    if pa.types.is_string(values.type):
        values = without_missing(values)
        rounded = values.filter(pc.match_substring_regex(values, ROUNDED))
        if len(rounded):
            raise ReadError(_rounded(name, rounded[0].as_py()))
        if kind == pa.int64() and not _all_integers(values):
            raise TypeChanged(name, "string")
    elif kind == pa.int64() and not (_is_number(values.type) or _is_empty(values.type)):
        raise TypeChanged(name, "string")
    if kind == pa.string():
        return without_missing(exact_text(values))
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid:  # beyond 64 bits with a sign
        raise TypeChanged(name, "string") from None


def carried(values: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    """Values of an extra column in its type over all files: string, int64 or float32 (returned as float32 or float64).

    Raises
    ------
    TypeChanged
        Where a value does not fit.
    """
    if kind == pa.string():
        return exact_text(values)
    if pa.types.is_string(values.type):
        values = without_missing(values)
        if kind == pa.int64() and not _all_integers(values):
            raise TypeChanged(name, "float32" if _cast(values, pa.float64()) is not None else "string")
        lower = pc.utf8_lower(values)
        if kind == pa.float32() and pc.all(pc.is_in(lower, pa.array(["true", "false", None]))).as_py():
            values = lower.cast(pa.bool_())
    found = None
    if pa.types.is_floating(values.type) and kind == pa.int64():
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        if values.null_count < len(values):
            raise TypeChanged(name, "float32")
    if pa.types.is_floating(values.type) and kind == pa.float32():
        return values
    found = _cast(values, pa.int64() if kind == pa.int64() else pa.float64())
    if found is None:
        raise TypeChanged(name, "string")
    return found


def without_missing(values: pa.Array) -> pa.Array:
    """Text with null for empty text and for words that mean a missing value."""
    return pc.if_else(pc.is_in(values, pa.array(MISSING)), pa.scalar(None, pa.string()), values)


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array | None:
    try:
        return values.cast(kind, safe=pa.types.is_integer(kind))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _all_integers(values: pa.Array) -> bool:
    return pc.all(pc.match_substring_regex(values, WHOLE)).as_py() is not False


def _rounded(name: str, value: str) -> str:
    return (
        f"column {name!r} (object_id) holds numbers such as {value} that are no exact integers: they cannot identify objects; "
        "name another column, or leave object_id out to use the row number"
    )
