"""HDF5: a group of datasets of the same length, or one dataset of records. Rows are the first axis of a dataset."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa

from zmill.catalog.files import ReadError
from zmill.survey.readers import described
from zmill.survey.readers.base import Span, Table, windows
from zmill.survey.readers.held import arrow
from zmill.survey.readers.streams import compression

ASTROPY = ".__table_column_meta__"
"""Ending of the dataset in which astropy describes the columns of another dataset."""
ENDINGS = (".hdf5", ".h5", ".hdf", ".he5")
LOOK_ROWS = 1000
"""First rows that determine the type of texts and of lists."""


class Reader(Table):
    """One group or record dataset of an HDF5 file; the only one where `group` is not given."""

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        if kind := compression(path):
            raise ReadError(f"{path}: is compressed ({kind}), and HDF5 is not read from compressed files: unpack it")
        with h5py.File(path) as file:
            _refuse_others(file, path)
            self._group = group or _only_table(file, path)
            if self._group not in file:
                raise ReadError(f"{path}: there is no group {self._group!r}; there is: {', '.join(file) or 'nothing'}")
            table = file[self._group]
            names = _columns(table)
            if not names:
                raise ReadError(
                    f"{path}: group {self._group!r} has no dataset that is a column; there is: {_tables(file)}"
                )
            axes = _axes(table, names)
            names = [name for name in names if name not in axes]
            lengths = {len(_column(table, name)) for name in names}
            if len(lengths) > 1:
                raise ReadError(f"{path}: the datasets of group {self._group!r} differ in length: {sorted(lengths)}")
            self.rows: int = lengths.pop()
            self._describe(table, names, axes)
            self.describe_units(_units(file, self._group))

    def _describe(self, table: h5py.Group | h5py.Dataset, names: list[str], axes: dict[str, str]) -> None:
        types, unreadable, shapes = {}, dict(axes), {}
        for name in names:
            column = _column(table, name)
            try:
                types[name] = arrow(column[: LOOK_ROWS if column.dtype.kind == "O" else 0]).type
                if len(shape := _shape(table, name)) > 2:
                    shapes[name] = shape[1:]
            except (TypeError, pa.ArrowException):
                unreadable[name] = f"holds {column.dtype} values of shape {column.shape[1:]}, which zmill does not read"
        self.describe(types, unreadable, shapes)

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        first, last = span or (0, self.rows)
        with h5py.File(self.path) as file:
            table = file[self._group]
            for start, stop in windows(first, last, batch_rows):
                # Rows without any value do not tell the type of a column.
                arrays = [arrow(_column(table, name)[start:stop]).cast(self.types[name]) for name in columns]
                yield pa.RecordBatch.from_arrays(arrays, names=columns)


def _only_table(file: h5py.File, path: Path) -> str:
    if _columns(file):
        return "/"
    found = _tables(file)
    if len(found) != 1:
        raise ReadError(
            f"{path}: name under `group` the group that holds the table; there is: {', '.join(found) or 'none'}"
        )
    return found[0]


def _tables(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if _columns(item) else None)
    return found


def _refuse_others(file: h5py.File, path: Path) -> None:
    """Refuse the layouts of pandas and vaex, which are not plain tables of columns."""
    frames = []
    file.visititems(lambda name, item: frames.append(name) if "pandas_type" in item.attrs else None)
    if frames:
        raise ReadError(
            f"{path}: was written by pandas (to_hdf: {', '.join(frames[:5])}), in a layout of its own; write it with to_parquet, or "
            "with astropy: Table.from_pandas(frame).write('name.hdf5', path='table')"
        )
    if "table/columns" in file:
        raise ReadError(
            f"{path}: was written by vaex, in a layout of its own; write it with export_parquet or export_fits"
        )


def _columns(item: h5py.Group | h5py.Dataset) -> list[str]:
    if isinstance(item, h5py.Dataset):
        return list(item.dtype.names or ()) if item.ndim == 1 and item.dtype.names else []
    return [
        name
        for name, d in item.items()
        if isinstance(d, h5py.Dataset) and d.ndim and not d.dtype.names and not name.endswith(ASTROPY)
    ]


def _axes(table: h5py.Group | h5py.Dataset, names: list[str]) -> dict[str, str]:
    """Datasets that are no columns but an axis of others, such as the wavelengths of spectra, and what each of them is.

    An axis has as many values as an axis of the arrays in the rows of another dataset, and not as many as there are rows.
    """
    if isinstance(table, h5py.Dataset):
        return {}
    wide = {name: table[name].shape for name in names if table[name].ndim > 1}
    rows = {shape[0] for shape in wide.values()}
    of = {length: name for name, (_, *lengths) in wide.items() for length in lengths}
    found = [
        name for name in names if table[name].ndim == 1 and len(table[name]) in of and len(table[name]) not in rows
    ]
    return {
        name: f"has {len(table[name])} values, one for each value in a row of {of[len(table[name])]!r}, and not one per row"
        for name in found
    }


def _shape(table: h5py.Group | h5py.Dataset, name: str) -> tuple[int, ...]:
    """Shape of a column, rows first."""
    if isinstance(table, h5py.Group):
        return tuple(table[name].shape)
    return (len(table), *table.dtype[name].shape)


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


def example(table: pa.Table, folder: Path) -> Path:
    """Write a small table in this format, for the tests that all readers share; returns the file."""
    path = folder / "s.hdf5"
    with h5py.File(path, "w") as file:
        for name in table.column_names:
            values = table.column(name).to_numpy(zero_copy_only=False)
            file[f"photometry/{name}"] = values.astype("S8") if values.dtype == object else values
    return path
