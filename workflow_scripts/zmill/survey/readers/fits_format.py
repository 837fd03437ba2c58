"""FITS binary tables, read row slice by row slice from the file (no memory map: its pages would count as ours)."""

from __future__ import annotations

import gzip
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
import pyarrow as pa
from astropy.io import fits

from zmill.survey.readers.base import ReadError, Span, Table, windows

ENDINGS = (".fits", ".fit", ".fits.gz", ".fit.gz", ".fts")


class Reader(Table):
    """One binary table of a FITS file: the extension of this name or number, or the first.

    Scalar numeric, logical and text columns are offered; integers are scaled by TSCAL and TZERO, TNULL becomes null.
    """

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
            hdu = _table(hdus, path, group)
            self._offset: int = hdu.fileinfo()["datLoc"]
            self._width: int = hdu.header["NAXIS1"]
            self.rows: int = hdu.header["NAXIS2"]
            self._fields: dict[str, tuple[np.dtype, int]] = {}
            self._columns: dict[str, fits.Column] = {}
            raw = hdu.columns.dtype
            for column in hdu.columns:
                kind, place = cast("tuple[np.dtype, int]", raw.fields[column.name][:2])
                if kind.shape == () and column.format.format in "LBIJKEDA":
                    self._fields[column.name] = (kind.newbyteorder(">"), place)
                    self._columns[column.name] = column.copy()
            if raw.itemsize != self._width:
                raise ReadError(f"{path}: rows are {self._width} bytes wide, its columns {raw.itemsize}")
        self.columns = list(self._fields)
        self.units = {name: str(column.unit) for name, column in self._columns.items() if column.unit}
        if path.suffix != ".gz" and path.stat().st_size < self._offset + self.rows * self._width:
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
        with self._open() as file:
            file.seek(self._offset + first * self._width)
            for start, stop in windows(first, last, batch_rows):
                data = file.read((stop - start) * self._width)
                if len(data) < (stop - start) * self._width:
                    raise ReadError(f"{self.path}: is cut short: it ends before row {stop} of {self.rows}")
                rows = np.frombuffer(data, layout)
                arrays = [_arrow(rows[name], self._columns[name]) for name in columns]
                yield pa.RecordBatch.from_arrays(arrays, names=columns)

    def _open(self) -> IO[bytes]:
        return cast("IO[bytes]", gzip.open(self.path)) if self.path.suffix == ".gz" else open(self.path, "rb")


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
    for hdu in hdus:
        if isinstance(hdu, fits.BinTableHDU):
            return hdu
    raise ReadError(f"{path}: has no binary table")


def _arrow(values: np.ndarray, column: fits.Column) -> pa.Array:
    kind = column.format.format
    if kind == "A":
        return pa.array([text.decode("ascii", "replace").rstrip() for text in values.tolist()], pa.string())
    if kind == "L":
        return pa.array(values == ord("T"))
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


def _shifted(values: np.ndarray, zero: int) -> np.ndarray:
    """FITS writes unsigned integers as signed ones less half their range, and signed bytes the other way round."""
    signed = {1 << 15: np.uint16, 1 << 31: np.uint32, 1 << 63: np.uint64}
    if zero in signed and values.dtype.itemsize == np.dtype(signed[zero]).itemsize:
        return values.view(signed[zero]) ^ signed[zero](zero)
    if zero == -128 and values.dtype == np.uint8:
        return (values ^ np.uint8(128)).view(np.int8)
    return values.astype(np.int64) + zero
