"""Stamps in tables or cubes of their own: npz, HDF5, Parquet, Arrow, FITS."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from zmill.catalog.files import ReadError
from zmill.catalog.sizes import rows_of
from zmill.columns import floats
from zmill.inputs.further import Identified
from zmill.inputs.image.match import Identifiers, by_position, same_type
from zmill.inputs.image.plausible import wrong_shapes, wrong_units
from zmill.inputs.image.sources.base import Found, SourceSettings, StampSource
from zmill.sections import Name, PathText, Radius, Text

RUN_ROWS = 16
"""Rows that are read at once where a format can be read from the middle."""
READ_BYTES, READ_ROWS = 32 << 20, 65_536
"""Size and number of the rows that are read at a time."""


class TableSettings(SourceSettings):
    """`image.source` of type `table`. `flux`, `ivar`, … of the section `image:` are columns of these files."""

    type: Literal["table"]
    """Stamps in tables or cubes of their own."""
    files: list[PathText] = Field(min_length=1)
    """Paths or glob patterns, below `data_dir` unless absolute; rows are numbered in this order."""
    format: Name | None = None
    """As `format` of the survey."""
    group: Text | None = None
    """As `group` of the survey."""
    join: Literal["object_id", "position", "row"]
    """By what a row finds its stamp: its identifier, its position, or its number: row i of the survey's files has stamp i."""
    object_id: Text = "object_id"
    """Column of the identifiers, for `join: object_id`."""
    ra: Text = "ra"
    """Column of the right ascension in degrees, for `join: position`."""
    dec: Text = "dec"
    """Column of the declination in degrees."""
    radius_arcsec: Radius = 1.0
    """Largest distance of a row from the position of its stamp, of which the nearest one is taken."""

    @property
    def by_row_number(self) -> bool:
        return self.join == "row"

    @property
    def keys(self) -> dict[str, str]:
        """Columns that stamps are found by -> setting."""
        names = {"object_id": ["object_id"], "position": ["ra", "dec"], "row": []}[self.join]
        return {getattr(self, name): f"image.source.{name}" for name in names}


class Source(StampSource[TableSettings]):
    """Stamps in tables, whose rows are numbered over all files."""

    Settings = TableSettings

    def faults(self, columns: Mapping[str, str], rows: int | None) -> list[str]:
        found: list[str] = []
        types: dict[str, tuple[Path, pa.DataType]] = {}
        for path in self.files:
            try:
                table = self.open_table(path, self.settings.format, self.settings.group)
                lacks = [table.lacks(name, key, name in self._arrays(columns)) for name, key in columns.items()]
                lacks += [table.lacks(name, key) for name, key in self.settings.keys.items()]
            except ReadError as error:
                found.append(str(error))
                continue
            wrong = {**wrong_shapes(table.shapes, self.section), **wrong_units(table.units, self.section)}
            found += [f"{path}: {lack}" for lack in lacks if lack]
            found += [f"{path}: column {name!r} {why}" for name, why in wrong.items()]
            for name in columns:
                first = types.setdefault(name, (path, table.types.get(name)))
                if table.types.get(name) != first[1] and not any(lacks):
                    found.append(
                        f"{path}: column {name!r} is {table.types[name]}, and {first[1]} in {first[0]}: make them alike"
                    )
            if table.rows is None:
                found.append(
                    f"{path}: stamps are read from FITS, HDF5, npz, Parquet, Arrow and HATS, which can be read from the middle"
                )
        if not found and self.settings.join == "row" and rows is not None and rows != self.stamps:
            found.append(
                f"image.source: join: row: the survey's files have {rows:,} rows, and there are {self.stamps:,} stamps: expected as many"
            )
        return found

    def _arrays(self, columns: Any) -> set[str]:
        return {name for name in columns if name != self.section.edge and not self._is_single(name)}

    def _is_single(self, name: str) -> bool:
        """Whether a column holds one number per row: a width of the point spread function of one band."""
        width = self.section.psf_fwhm
        return (
            isinstance(width, str)
            and "{band}" in width
            and name in [width.replace("{band}", band) for band in self.section.bands]
        )

    @cached_property
    def _tables(self) -> list[Any]:
        return [self.open_table(path, self.settings.format, self.settings.group) for path in self.files]

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum([0, *(table.rows for table in self._tables)])

    @property
    def stamps(self) -> int:
        return int(self._ends[-1])

    @cached_property
    def _keys(self) -> list[pa.ChunkedArray]:
        """The columns that stamps are found by."""
        names = list(self.settings.keys)
        numeric = names if self.settings.join == "position" else []
        parts = [
            [pa.Table.from_batches([batch]) for batch in table.batches(names, READ_ROWS, numeric=numeric)]
            for table in self._tables
        ]
        return [same_type([part.column(name) for some in parts for part in some]) for name in names]

    @cached_property
    def _index(self) -> Any:
        if self.settings.join == "position":
            ra, dec = (floats(column.combine_chunks()).astype(np.float64) for column in self._keys)
            return by_position(ra, dec, self.settings.radius_arcsec)
        return Identifiers(
            self._keys[0].combine_chunks(), f"image.source.object_id: column {self.settings.object_id!r}"
        )

    def find(self, rows: Identified, columns: list[str]) -> Found:
        repeated = np.zeros(len(rows.numbers), bool)
        if self.settings.join == "row":
            number = np.where(rows.numbers < self.stamps, rows.numbers, -1)
        elif self.settings.join == "position":
            number = self._index(rows.ra, rows.dec)
        else:
            number, repeated = self._index.find(rows.ids)
        wanted, which = np.unique(number, return_inverse=True)
        none = int(len(wanted) > 0 and wanted[0] < 0)
        taken = self._take(wanted[none:], columns)
        return Found(np.asarray(which - none, np.int64), taken, {"image_repeated": repeated})

    def _take(self, numbers: NDArray[np.int64], columns: list[str]) -> dict[str, pa.Array]:
        """Columns of stamps of given numbers, which increase."""
        parts: dict[str, list[pa.Array]] = {name: [] for name in columns}
        for table, (start, stop) in zip(self._tables, pairwise(self._ends), strict=True):
            local = numbers[np.searchsorted(numbers, start) : np.searchsorted(numbers, stop)] - start
            for found in _rows(table, local, columns, self._arrays(columns)):
                for name in columns:
                    parts[name].append(found.column(name))
        empty = {name: pa.array([], self._tables[0].types.get(name, pa.null())) for name in columns}
        return {name: pa.concat_arrays(arrays) if arrays else empty[name] for name, arrays in parts.items()}


def _rows(table: Any, numbers: NDArray[np.int64], columns: list[str], arrays: set[str]) -> Any:
    """Record batches of rows of a table, whose numbers increase; only pieces with such rows are read."""
    if not len(numbers):
        return
    spans = [span or (0, table.rows) for span in table.spans(RUN_ROWS)]
    starts, stops = np.array([one for one, _ in spans]), np.array([two for _, two in spans])
    pieces = np.unique(np.searchsorted(starts, numbers, side="right") - 1)
    schema = pa.schema([pa.field(name, table.types.get(name, pa.float32())) for name in columns])
    batch_rows = rows_of(READ_BYTES, schema, READ_ROWS)
    for run in np.split(pieces, np.flatnonzero(np.diff(pieces) != 1) + 1):
        first, last = int(starts[run[0]]), int(stops[run[-1]])
        at = first
        for batch in table.batches(columns, batch_rows, (first, last), numeric=set(columns) - arrays, arrays=arrays):
            local = numbers[np.searchsorted(numbers, at) : np.searchsorted(numbers, at + batch.num_rows)] - at
            at += batch.num_rows
            if len(local):
                yield batch.take(pa.array(local))
