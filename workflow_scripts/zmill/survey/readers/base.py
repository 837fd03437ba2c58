"""Base class and common functions of the readers of file formats."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zmill.catalog.files import ReadError
from zmill.config import nearest
from zmill.survey.readers.streams import BROKEN

Span = tuple[int, int] | None
"""First row and end row of a piece of a table; None for the complete table."""
EXACT = {pa.float32(): 2**24, pa.float64(): 2**53}
"""Largest integers that floats represent exactly."""
MOST_ELEMENTS = 1000
"""Elements of a vector column whose units are listed one by one."""


class Table(ABC):
    """A table in a file, read in batches: memory depends on `batch_rows` and not on the file.

    Attributes
    ----------
    path : the file, or the folder of a HATS catalogue.
    columns : the names of the columns that hold one value per row, in the file's order.
    types : the type of each column, by the header; of text, by the first rows, and null where those have no value. Columns
        of several values per row are list types: `NAME[0]` names their first element.
    unreadable : columns that zmill does not read, and what each of them is.
    rows : the number of rows, or None where it is only known after reading the file.
    shapes : shape of the values in a row, by column, where all rows have one shape; (5, 32, 32) of a column of 5120 numbers, whose
        last axis varies fastest.
    units : the units that the file gives, as it writes them, by column; a column of which it gives none is left out.
    warnings : warnings about the file for the log.
    """

    path: Path
    columns: list[str]
    types: Mapping[str, pa.DataType]
    unreadable: Mapping[str, str] = MappingProxyType({})
    rows: int | None
    shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    units: Mapping[str, str] = MappingProxyType({})
    warnings: tuple[str, ...] = ()

    @abstractmethod
    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        """The format's own part of `batches`; types as in the file, text from text files."""

    def spans(self, rows: int) -> list[Span]:
        """Pieces of about `rows` rows that can be read independently of each other, in the order of the file."""
        if self.rows is None:
            return [None]
        return [(start, min(start + rows, self.rows)) for start in range(0, self.rows, rows)]

    def describe(
        self,
        types: Mapping[str, pa.DataType],
        unreadable: Mapping[str, str] | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        """Set `columns`, `types`, `unreadable` and `shapes` from the types of all columns in the file's order.

        shapes : of columns of arrays of several dimensions; those of lists of a fixed length follow from their types.
        """
        self.types = types
        of_lists = {name: (kind.list_size,) for name, kind in types.items() if pa.types.is_fixed_size_list(kind)}
        self.shapes = {**of_lists, **(shapes or {})}
        self.columns = [name for name, kind in types.items() if not pa.types.is_nested(kind)]
        self.unreadable = unreadable or {}

    def describe_units(self, units: Mapping[str, str]) -> None:
        """Set `units` from those of the file's columns; the elements of a vector column have its unit."""
        found = {name: unit for name, unit in units.items() if name in self.types}
        for name, unit in list(found.items()):
            kind = self.types[name]
            if pa.types.is_fixed_size_list(kind):
                found |= {f"{name}[{n}]": unit for n in range(min(kind.list_size, MOST_ELEMENTS))}
        self.units = found

    def type_of(self, column: str) -> pa.DataType:
        """The type of a column, or of the element of a vector column."""
        if column in self.types:
            return self.types[column]
        return self.types[self._element(column)[0]].value_type

    def lacks(self, column: str, key: str = "", array: bool = False) -> str:
        """Why a column cannot be read, as a sentence without a full stop; empty where it can.

        key : the setting that names the column, for the sentence.
        array : whether it is to hold several numbers per row.
        """
        if array and (kind := self.types.get(column)) is not None:
            if _is_list(kind) and not pa.types.is_nested(kind.value_type) and not is_text(kind.value_type):
                return ""
            return f"column {column!r}{f' ({key})' if key else ''} holds {kind} and not several numbers per row"
        key = f" ({key})" if key else ""
        if column in self.columns:
            return ""
        parent = re.split(r"[\[.]", column)[0]
        for name in (column, parent):  # also a field of an unreadable column
            if name in self.unreadable:
                return f"column {name!r}{key} {self.unreadable[name]}"
        if parent in self.types and pa.types.is_struct(self.types[parent]):
            return f"column {parent!r}{key} {_vector(parent, self.types[parent])}"
        if column in self.types:
            return f"column {column!r}{key} {_vector(column, self.types[column])}"
        name, index = self._element(column)
        kind = self.types.get(name) if index is not None else None
        if kind is not None and _is_list(kind) and not pa.types.is_nested(kind.value_type):
            if pa.types.is_fixed_size_list(kind) and index is not None and index >= kind.list_size:
                return f"there is no {column!r}{key}: {name} {_vector(name, kind)}"
            return ""
        close = nearest(column, [*self.columns, *self.types])
        vectors = [name for name, kind in self.types.items() if _is_list(kind)]
        listed = [name for name in vectors if column.startswith(name) or f"{name!r}" in close] or vectors[
            : 0 if close else 3
        ]
        near = "".join(f"; {name} {_vector(name, self.types[name])}" for name in listed)
        return f"there is no column {column!r}{key}{near or close or _some(self.columns)}"

    def batches(
        self,
        columns: list[str],
        batch_rows: int,
        span: Span = None,
        numeric: Collection[str] = (),
        text: Collection[str] = (),
        arrays: Collection[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        """Rows in the order of the file, in batches of at most `batch_rows`.

        Parameters
        ----------
        columns : which columns, each once; the batches have them in this order. `NAME[2]` is the third element of a column
            of several values per row; null where a row has fewer.
        span : one of `spans()`, or None for the complete table.
        numeric : columns to be given as floats; null where there is no value.
        text : columns to be given as text, exactly (`exact_text`).
        arrays : columns of several numbers per row, to be given as lists.
            All others keep the file's type; in files of text every value is text.

        Raises
        ------
        ReadError
            Where a column is missing, a value does not fit, or the file is damaged.
        """
        for column in columns:
            if lack := self.lacks(column, array=column in arrays):
                raise ReadError(f"{self.path}: {lack}")
        source = {
            column: column if column in self.columns or column in arrays else self._element(column)[0]
            for column in columns
        }
        masks = {column: f"{column}.mask" for column in columns if self._has_mask(column)}
        wanted = list(dict.fromkeys([*source.values(), *masks.values()]))
        try:
            for batch in self.read(wanted, batch_rows, span, numeric):
                found = {name: plain(batch.column(index)) for index, name in enumerate(batch.schema.names)}
                arrays = []
                for column in columns:
                    array = found[source[column]]
                    if source[column] != column:
                        array = element(array, self._element(column)[1] or 0)
                    if column in masks:
                        array = pc.if_else(found[masks[column]], pa.scalar(None, array.type), array)
                    if column in numeric:
                        array = self._floats(column, array)
                    elif column in text:
                        array = exact_text(array)
                    arrays.append(array)
                yield pa.RecordBatch.from_arrays(arrays, names=columns)
        except (pa.ArrowException, ValueError, *BROKEN) as error:
            raise ReadError(f"{self.path}: cannot be read: {error}") from error

    def _has_mask(self, column: str) -> bool:
        """Whether astropy has written a mask column for the column."""
        return f"{column}.mask" in self.columns and pa.types.is_boolean(self.types[f"{column}.mask"])

    def _floats(self, column: str, array: pa.Array) -> pa.Array:
        if pa.types.is_floating(array.type):
            return array
        try:
            return array.cast(pa.float64(), safe=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ReadError(f"{self.path}: column {column!r} ({array.type}) holds no numbers: {error}") from None

    @staticmethod
    def _element(column: str) -> tuple[str, int | None]:
        """Name and index of `NAME[index]`."""
        found = re.fullmatch(r"(.+)\[(\d+)\]", column, re.DOTALL)
        return (found[1], int(found[2])) if found else (column, None)


def exact_text(array: pa.Array) -> pa.Array:
    """Values as text: integers exactly, floats as the shortest text that reads back equal (3.0 is `3`), truth values as
    `true` and `false`, dates as 2000-01-01; NaN is null.
    """
    array = plain(array)
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
        integral = pc.and_(pc.equal(array, pc.floor(array)), pc.less_equal(pc.abs(array), EXACT[array.type]))
        digits = pc.if_else(integral, array, pa.scalar(0, array.type)).cast(pa.int64()).cast(pa.string())
        return pc.if_else(integral, digits, array.cast(pa.string()))
    return array if pa.types.is_string(array.type) else array.cast(pa.string())


def plain(array: pa.Array) -> pa.Array:
    """The array in a type that zmill supports: strings of one kind, no dictionaries, no extension types."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if len(shape_of(array.type)) > 1:
        array = _flat(array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_float16(array.type):
        array = array.cast(pa.float32())
    if is_text(array.type) and not pa.types.is_string(array.type):
        array = _decoded(array)
    return array


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type that `plain` returns for a type."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if len(shape := shape_of(kind)) > 1:
        while pa.types.is_fixed_size_list(kind):
            kind = kind.value_type
        return pa.list_(kind, math.prod(shape))
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_float16(kind):
        return pa.float32()
    return pa.string() if is_text(kind) else kind


def shape_of(kind: pa.DataType) -> tuple[int, ...]:
    """Shape of the values in a row of tensors, or of lists of a fixed length, also within each other; () of other types."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return tuple(kind.shape)
    if not pa.types.is_fixed_size_list(kind):
        return ()
    return (kind.list_size, *shape_of(kind.value_type))


def _flat(array: pa.Array) -> pa.Array:
    """Lists of a fixed length of such lists as one list per row; null rows stay null.

    Raises
    ------
    ValueError
        Where a list within a row is null.
    """
    if not pa.types.is_fixed_size_list(array.type.value_type):
        return array
    inner = _flat(array.flatten())  # of the rows that are not null
    if inner.null_count:
        raise ValueError("a list within a row is null")
    flat = pa.FixedSizeListArray.from_arrays(inner.flatten(), array.type.list_size * inner.type.list_size)
    if not array.null_count:
        return flat
    there = array.is_valid().to_numpy(zero_copy_only=False)
    return flat.take(pa.array(np.cumsum(there) - 1, mask=~there))


def is_text(kind: pa.DataType) -> bool:
    """Whether values of a type are text."""
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _decoded(array: pa.Array) -> pa.Array:
    try:
        return array.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([decoded(value) for value in array.to_pylist()], pa.string())


def decoded(value: bytes | str | None) -> str | None:
    """Bytes as text: UTF-8, and where they are not, Latin-1."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def element(array: pa.Array, index: int) -> pa.Array:
    """One element of each row of a list array; null where the row has fewer."""
    if pa.types.is_fixed_size_list(array.type):
        return pc.list_element(array, index)
    offsets = np.asarray(array.offsets, np.int64)
    rows = offsets[:-1] + index
    absent = (rows >= offsets[1:]) | array.is_null().to_numpy(zero_copy_only=False)
    return array.values.take(pa.array(rows, mask=absent))


def as_astropy(table: pa.Table) -> Any:
    """A table without nulls as one of astropy, for the examples of formats that astropy writes."""
    from astropy.table import Table as AstropyTable  # takes long to import

    columns = {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}
    return AstropyTable({name: v.astype("U8") if v.dtype == object else v for name, v in columns.items()})


def refuse_repeated(path: Path, names: Iterable[str]) -> None:
    """Refuse columns of the same name.

    Raises
    ------
    ReadError
        The message names them.
    """
    repeated = [(name, times) for name, times in Counter(names).items() if times > 1]
    if repeated:
        repeats = ", ".join(f"{times} columns {name!r}" for name, times in repeated[:5])
        raise ReadError(
            f"{path}: has {repeats}; every column needs a name of its own: rename or drop the others in the file"
        )


def windows(start: int, stop: int, rows: int) -> Iterator[tuple[int, int]]:
    """Consecutive pieces of `rows` rows between `start` and `stop`."""
    for first in range(start, stop, rows):
        yield first, min(first + rows, stop)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _vector(name: str, kind: pa.DataType) -> str:
    if not _is_list(kind):
        return f"holds records ({kind}) and not one value per row: write its fields as columns of their own"
    if pa.types.is_nested(kind.value_type):
        return f"holds lists of lists ({kind}) and not one value per row: write what is wanted as columns of its own"
    what = "texts" if is_text(kind.value_type) else "values" if pa.types.is_boolean(kind.value_type) else "numbers"
    if pa.types.is_fixed_size_list(kind):
        last = f" … {name}[{kind.list_size - 1}]" if kind.list_size > 1 else ""
        return f"is a column of {kind.list_size} {what} per row: write {name}[0]{last} for one of them"
    return f"is a column of lists of {what}: write {name}[0] for the first of each row"


def _some(columns: list[str]) -> str:
    return f"; its columns are {', '.join(columns[:20])}{', ...' if len(columns) > 20 else ''}"
