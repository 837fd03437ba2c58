"""FITS binary tables, read in chunks of rows from the file (not by a memory map, whose pages would count as the process's memory)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from astropy.io import fits

from zmill.catalog.files import ReadError
from zmill.survey.readers.base import Span, Table, as_astropy, decoded, refuse_repeated, windows
from zmill.survey.readers.streams import compression, opened

ENDINGS = (".fits", ".fit", ".fts")
READABLE = "LBIJKEDA"
"""Codes of the column formats that are read: truth values, integers, floats, text."""


class Reader(Table):
    """One binary table of a FITS file: the extension of this name or number, or the only one.

    Integers are scaled by TSCAL and TZERO; TNULL and the logical 0 become null. Columns of several values per row are
    lists of a fixed length; complex numbers, bits and arrays of variable length are not read.
    """

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        compressed = compression(path)
        if compressed == "zst":
            raise ReadError(f"{path}: is compressed with zstd, which FITS files are not read from: unpack it")
        with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
            hdu = _table(hdus, path, group)
            self._offset: int = hdu.fileinfo()["datLoc"]
            self._width: int = hdu.header["NAXIS1"]
            self.rows: int = hdu.header["NAXIS2"]
            if hdu.header.get("ZTABLE"):
                raise ReadError(f"{path}: is a compressed table (ZTABLE): unpack it with funpack")
            refuse_repeated(path, hdu.columns.names)
            self._fields: dict[str, tuple[np.dtype, int]] = {}
            self._columns: dict[str, fits.Column] = {}
            types, unreadable, shapes = {}, {}, {}
            raw = hdu.columns.dtype
            for column in hdu.columns:
                kind, offset = cast("tuple[np.dtype, int]", raw.fields[column.name][:2])
                if _is_readable(column, kind):
                    self._fields[column.name] = (kind.newbyteorder(">"), offset)
                    self._columns[column.name] = column.copy()
                    empty = np.empty(0, np.dtype([("x", kind.newbyteorder(">"))]))["x"]
                    types[column.name] = _arrow(empty, self._columns[column.name]).type
                    if len(kind.shape) > 1:
                        shapes[column.name] = kind.shape
                else:
                    unreadable[column.name] = _why_unreadable(column)
            if raw.itemsize != self._width:
                raise ReadError(f"{path}: rows are {self._width} bytes wide, its columns {raw.itemsize}")
        self.describe(types, unreadable, shapes)
        self.describe_units({name: str(column.unit) for name, column in self._columns.items() if column.unit})
        if compressed is None and path.stat().st_size < self._offset + self.rows * self._width:
            raise ReadError(f"{path}: is cut short: its header promises {self.rows} rows, the file ends before them")

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        first, last = span or (0, self.rows)
        layout = np.dtype(
            {
                "names": columns,
                "formats": [self._fields[name][0] for name in columns],
                "offsets": [self._fields[name][1] for name in columns],
                "itemsize": self._width,
            }
        )
        with opened(self.path) as file:
            file.seek(self._offset + first * self._width)
            for start, stop in windows(first, last, batch_rows):
                data = file.read((stop - start) * self._width)
                if len(data) < (stop - start) * self._width:
                    raise ReadError(f"{self.path}: is cut short: it ends before row {stop} of {self.rows}")
                rows = np.frombuffer(data, layout)
                arrays = [_arrow(rows[name], self._columns[name]) for name in columns]
                yield pa.RecordBatch.from_arrays(arrays, names=columns)


def _is_readable(column: fits.Column, kind: np.dtype) -> bool:
    """Whether a column holds a value or an array per row; arrays of texts are not read."""
    texts = column.format.format == "A" and len(kind.shape) > 1
    return column.format.format in READABLE and bool(column.format.repeat) and not texts


def _why_unreadable(column: fits.Column) -> str:
    if column.format.format in "PQ":
        return (
            f"has arrays of variable length (FITS format {column.format}), which zmill does not read from FITS: write them with one length, "
            "or as lists in Parquet"
        )
    if column.format.format in READABLE and column.format.repeat:
        return f"has arrays of texts of several dimensions in its rows (TDIM {column.dim}), which zmill does not read"
    return f"has the FITS format {column.format}, which zmill does not read"


def _table(hdus: fits.HDUList, path: Path, group: str | None) -> fits.BinTableHDU:
    if group is not None:
        key: str | int = int(group) if group.isdigit() else group
        try:
            hdu = hdus[key]
        except (KeyError, IndexError):
            names = ", ".join(f"{n} {hdu.name}".strip() for n, hdu in enumerate(hdus))
            raise ReadError(f"{path}: there is no extension {group!r}; there is: {names}") from None
        if not isinstance(hdu, fits.BinTableHDU):
            raise ReadError(f"{path}: extension {group!r} is no binary table")
        return hdu
    tables = {number: hdu for number, hdu in enumerate(hdus) if isinstance(hdu, fits.BinTableHDU)}
    if len(tables) > 1:
        listed = ", ".join(f"{n} {hdu.name} ({hdu.header['NAXIS2']} rows)" for n, hdu in tables.items())
        raise ReadError(f"{path}: holds {len(tables)} tables: {listed}; name one under `group`, by number or name")
    if not tables:
        text = any(isinstance(hdu, fits.TableHDU) for hdu in hdus)
        raise ReadError(f"{path}: has no binary table" + ("; write its ASCII table as a binary one" if text else ""))
    return next(iter(tables.values()))


def _arrow(values: np.ndarray, column: fits.Column) -> pa.Array:
    if values.ndim > 1:
        return pa.FixedSizeListArray.from_arrays(_arrow(values.reshape(-1), column), math.prod(values.shape[1:]))
    kind = column.format.format
    if kind == "A":
        return pa.array([_text(value) for value in values.tolist()], pa.string())
    if kind == "L":
        return pa.array(values == ord("T"), mask=(values != ord("T")) & (values != ord("F")))
    native = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("=")))
    mask = native == column.null if column.null is not None and native.dtype.kind in "iu" else None
    zero, scale = column.bzero or 0, column.bscale or 1
    if scale != 1 or zero != int(zero):
        native = native * scale + zero
    elif zero and native.dtype.kind in "iu":
        native = _shifted(native, int(zero))
    elif zero:
        native = native + zero
    return pa.array(native, mask=mask)


def _text(value: Any) -> str:
    return (decoded(value.split(b"\0", 1)[0]) or "").rstrip()


def _shifted(values: np.ndarray, zero: int) -> np.ndarray:
    """FITS writes unsigned integers as signed ones less half their range, and signed bytes the other way round."""
    signed = {1 << 15: np.uint16, 1 << 31: np.uint32, 1 << 63: np.uint64}
    if zero in signed and values.dtype.itemsize == np.dtype(signed[zero]).itemsize:
        return values.view(signed[zero]) ^ signed[zero](zero)
    if zero == -128 and values.dtype == np.uint8:
        return (values ^ np.uint8(128)).view(np.int8)
    return values.astype(np.int64) + zero


def example(table: pa.Table, folder: Path) -> Path:
    """Write a small table in this format, for the tests that all readers share; returns the file."""
    path = folder / "s.fits"
    as_astropy(table).write(path, format="fits", overwrite=True)
    return path
