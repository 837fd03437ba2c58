"""HDF5: a group of one-dimensional datasets of the same length, or one dataset of records."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa

from zmill.survey.readers import described
from zmill.survey.readers.base import ReadError, Span, Table, windows

ASTROPY = ".__table_column_meta__"
"""Ending of the dataset in which astropy describes the columns of another."""
ENDINGS = (".hdf5", ".h5", ".hdf", ".he5")


class Reader(Table):
    """One group or record dataset of an HDF5 file; the only one there is where `group` is not given."""

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        with h5py.File(path) as file:
            self._group = group or _only_table(file, path)
            if self._group not in file:
                raise ReadError(f"{path}: there is no group {self._group!r}; there is: {', '.join(file) or 'nothing'}")
            table = file[self._group]
            self.columns = _columns(table)
            if not self.columns:
                raise ReadError(f"{path}: group {self._group!r} has no one-dimensional dataset")
            lengths = {len(_column(table, name)) for name in self.columns}
            if len(lengths) > 1:
                raise ReadError(f"{path}: the datasets of group {self._group!r} differ in length: {sorted(lengths)}")
            self.rows: int = lengths.pop()
            self.units = _units(file, self._group)

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        first, last = span or (0, self.rows)
        with h5py.File(self.path) as file:
            table = file[self._group]
            for start, stop in windows(first, last, batch_rows):
                yield pa.RecordBatch.from_arrays(
                    [_arrow(_column(table, name)[start:stop]) for name in columns], names=columns
                )


def _only_table(file: h5py.File, path: Path) -> str:
    if _columns(file):
        return "/"
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if _columns(item) else None)
    if len(found) != 1:
        raise ReadError(f"{path}: give the group that holds the table; there is: {', '.join(found) or 'none'}")
    return found[0]


def _columns(item: h5py.Group | h5py.Dataset) -> list[str]:
    if isinstance(item, h5py.Dataset):
        return list(item.dtype.names or ()) if item.ndim == 1 else []
    return [
        name
        for name, d in item.items()
        if isinstance(d, h5py.Dataset) and d.ndim == 1 and not d.dtype.names and not name.endswith(ASTROPY)
    ]


def _units(file: h5py.File, group: str) -> dict[str, str]:
    """Units of the datasets' attributes, or of the header that astropy writes next to a dataset of records."""
    table = file[group]
    if isinstance(table, h5py.Group):
        units = {name: described.of_attributes(table[name].attrs) for name in _columns(table)}
        return {name: unit for name, unit in units.items() if unit}
    if group + ASTROPY not in file:
        return {}
    lines = file[group + ASTROPY][()]
    return described.of_yaml(line.decode("utf-8", "replace") for line in np.ravel(lines).tolist())


def _column(table: h5py.Group | h5py.Dataset, name: str) -> h5py.Dataset:
    if isinstance(table, h5py.Group):
        return table[name]
    return table.fields(name)


def _arrow(values: np.ndarray) -> pa.Array:
    if values.dtype.kind in "SO":
        return pa.array([v.decode("utf-8") if isinstance(v, bytes) else v for v in values.tolist()], pa.string())
    return pa.array(values.astype(values.dtype.newbyteorder("="), copy=False))
