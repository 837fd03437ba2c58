"""NumPy archives (`np.savez`): arrays of the same number of rows, such as a cube of stamps with the identifiers of its rows.

The rows are the first axis. Of an array that has them on its second one, such as (bands, rows, 23, 23), each plane is a column: `NAME[0]`.
The fields of a structured array are columns of their own. Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from zmill.catalog.files import ReadError
from zmill.survey.readers.base import Span, Table, refuse_repeated, windows
from zmill.survey.readers.held import arrow

ENDINGS = (".npz",)
SKIP_BYTES = 1 << 24
"""Bytes that are skipped at a time in a compressed archive."""


@dataclass(frozen=True)
class _Array:
    """An array of the archive, or a plane of one: its member, type, shape, and the number of bytes before its values."""

    member: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    fortran: bool


class Reader(Table):
    """One archive. With `group`, only the arrays whose names begin with it and a slash."""

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        with zipfile.ZipFile(path) as archive:
            found = {name.removesuffix(".npy"): _header(archive, name, path) for name in archive.namelist()}
            self._compressed = any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist())
        if group is not None:
            found = {name.removeprefix(f"{group}/"): one for name, one in found.items() if name.startswith(f"{group}/")}
            if not found:
                raise ReadError(f"{path}: there is no array {group}/…")
        lengths = Counter(one.shape[0] for one in found.values() if one.shape)
        if not lengths:
            raise ReadError(f"{path}: holds no array with rows")
        self.rows = max(lengths, key=lambda length: (lengths[length], length))
        types, unreadable, shapes = {}, {}, {}
        self._columns: dict[str, tuple[_Array, str | None]] = {}
        names: list[str] = []
        for name, one in _by_plane(found, self.rows).items():
            if why := _why_unreadable(one, self.rows):
                unreadable[name] = why
                continue
            for field in one.dtype.names or (None,):
                column, kind = field or name, one.dtype[field] if field else one.dtype
                shape = (*one.shape[1:], *kind.shape)
                names.append(column)
                try:
                    types[column] = arrow(np.empty((0, *shape), kind.base)).type
                except TypeError as error:
                    unreadable[column] = f"holds {error}, which zmill does not read"
                    continue
                self._columns[column] = one, field
                if len(shape) > 1:
                    shapes[column] = shape
        refuse_repeated(path, names)
        self.describe(types, unreadable, shapes)

    def spans(self, rows: int) -> list[Span]:
        """Pieces of a compressed archive would decompress what is before them: it is one piece."""
        return [(0, self.rows or 0)] if self._compressed and self.rows else super().spans(rows)

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        first, last = span or (0, self.rows or 0)
        wanted = dict.fromkeys(self._columns[name][0] for name in columns)
        with zipfile.ZipFile(self.path) as archive:
            files = {one: archive.open(one.member) for one in wanted}
            for one, file in files.items():
                _skip(file, one.start + first * _row_bytes(one))
            for start, stop in windows(first, last, batch_rows):
                blocks = {one: _rows(file, one, stop - start, self.path) for one, file in files.items()}
                arrays = []
                for name in columns:
                    one, field = self._columns[name]
                    arrays.append(arrow(blocks[one][field] if field else blocks[one]))
                yield pa.RecordBatch.from_arrays(arrays, names=columns)


def _header(archive: zipfile.ZipFile, member: str, path: Path) -> _Array:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ReadError(f"{path}: {member} has the version {version} of NumPy's format, which zmill does not read")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        return _Array(member, dtype, tuple(shape), file.tell(), bool(fortran))


def _by_plane(found: dict[str, _Array], rows: int) -> dict[str, _Array]:
    """The arrays, with the planes of those whose second axis has the rows."""
    planes: dict[str, _Array] = {}
    for name, one in found.items():
        if len(one.shape) < 3 or one.shape[0] == rows or one.shape[1] != rows or one.fortran or one.dtype.names:
            planes[name] = one
            continue
        for number in range(one.shape[0]):
            start = one.start + number * rows * int(one.dtype.itemsize * np.prod(one.shape[2:], dtype=np.int64))
            planes[f"{name}[{number}]"] = replace(one, shape=one.shape[1:], start=start)
    return planes


def _why_unreadable(one: _Array, rows: int) -> str:
    if not one.shape:
        return "holds a single value"
    if one.shape[0] != rows:
        return f"has the shape {one.shape}, and not {rows} rows"
    if one.dtype.hasobject:
        return "holds Python objects, which would be unpickled: save it as an array of numbers or texts"
    if one.fortran and len(one.shape) > 1:
        return "is in Fortran order, in which rows are not together: save np.ascontiguousarray of it"
    return ""


def _row_bytes(one: _Array) -> int:
    return int(one.dtype.itemsize * np.prod(one.shape[1:], dtype=np.int64))


def _rows(file: IO[bytes], one: _Array, count: int, path: Path) -> np.ndarray:
    """The next rows of an array."""
    wanted = count * _row_bytes(one)
    data = file.read(wanted)
    if len(data) < wanted:
        raise ReadError(f"{path}: is cut short: {one.member} ends before its last row")
    return np.frombuffer(data, one.dtype, count=count * int(np.prod(one.shape[1:], dtype=np.int64))).reshape(
        count, *one.shape[1:]
    )


def _skip(file: IO[bytes], size: int) -> None:
    if file.seekable():
        file.seek(size)
        return
    while size:
        size -= len(file.read(min(size, SKIP_BYTES)))


def example(table: pa.Table, folder: Path) -> Path:
    """Write a small table in this format, for the tests that all readers share; returns the file."""
    path = folder / "s.npz"
    columns: dict[str, Any] = {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}
    np.savez(path, **{name: v.astype("U8") if v.dtype == object else v for name, v in columns.items()})
    return path
