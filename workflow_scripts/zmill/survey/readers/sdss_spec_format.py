"""SDSS, BOSS and eBOSS spectra, one file an object (`spec-PLATE-MJD-FIBER.fits`): the table of pixels, and the row of the object."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
from astropy.io import fits

from zmill.catalog.files import ReadError
from zmill.survey.readers import fits_format
from zmill.survey.readers.base import Span, Table

ENDINGS = ()
CONTENT = ("fits",)
"""Formats that the file may have by its first bytes."""
PIXELS, OBJECT = "1", "2"
"""Numbers of the extensions: COADD, and SPECOBJ (SPALL in later releases)."""
NEEDED = ("flux", "loglam", "ivar")


class Reader(Table):
    """One spectrum, as one row: columns of COADD as lists (`flux`, `loglam`, `ivar`, `and_mask`, …), and those of SPECOBJ.

    `spec` is the name PLATE-MJD-FIBER. `loglam` is the decimal logarithm of the vacuum wavelength in angstrom.
    """

    rows = 1

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
            columns = getattr(hdus[1], "columns", None) if len(hdus) > 2 else None
            if columns is None or not set(NEEDED) <= {name.lower() for name in columns.names}:
                raise ReadError(
                    f"{path}: is no spectrum of SDSS: expected a table of pixels with {', '.join(NEEDED)} and a table of the object"
                )
        self._pixels, self._object = fits_format.Reader(path, PIXELS), fits_format.Reader(path, OBJECT)
        if self._object.rows != 1:
            raise ReadError(f"{path}: the table of the object has {self._object.rows} rows, expected 1")
        self._lists = {name.lower(): name for name in self._pixels.columns}
        types = dict(self._object.types)
        types |= {name: pa.list_(self._pixels.types[own]) for name, own in self._lists.items()}
        keys = {"PLATE", "MJD", "FIBERID"}
        if keys <= set(types):
            types["spec"] = pa.string()
        self.describe(types, self._object.unreadable)
        units = {name: self._pixels.units[own] for name, own in self._lists.items() if own in self._pixels.units}
        self.describe_units({**self._object.units, **units, "loglam": "log10(Angstrom) (vacuum)"})

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        of_object = [name for name in columns if name not in self._lists and name != "spec"]
        if "spec" in columns:
            of_object = list(dict.fromkeys([*of_object, "PLATE", "MJD", "FIBERID"]))
        found = self._row(self._object, of_object, numeric)
        if "spec" in columns:
            plate, mjd, fiber = (found[name][0].as_py() for name in ("PLATE", "MJD", "FIBERID"))
            found["spec"] = pa.array([f"{plate:04d}-{mjd}-{fiber:04d}"])
        for name, values in self._row(self._pixels, [self._lists[n] for n in columns if n in self._lists], ()).items():
            found[name.lower()] = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
        yield pa.RecordBatch.from_arrays([found[name] for name in columns], names=columns)

    @staticmethod
    def _row(table: fits_format.Reader, columns: list[str], numeric: Collection[str]) -> dict[str, pa.Array]:
        """Columns of a table, complete."""
        if not columns:
            return {}
        (batch,) = table.read(columns, max(1, table.rows), None, [name for name in numeric if name in columns])
        return dict(zip(columns, batch.columns, strict=True))
