"""Readers of FITS files that hold a table of objects, and their spectra as images with a row per object: common parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.io import fits

from zmill.catalog.files import ReadError
from zmill.columns import lists
from zmill.survey.readers import fits_format
from zmill.survey.readers.base import Span, Table, windows


class ImageSpectra(Table):
    """A table of objects whose spectra are images of the same file, read in runs of rows.

    A reader calls `join` in its constructor, and defines `spectra`.
    """

    def join(self, path: Path, group: str, types: Mapping[str, pa.DataType], units: Mapping[str, str]) -> None:
        """Set the columns: those of the table `group` of the file, and the spectra of these list types.

        Raises
        ------
        ReadError
            Where the table has columns of these names.
        """
        self.path = path
        self._objects = fits_format.Reader(path, group)
        self.rows = self._objects.rows
        if clash := sorted(set(types) & set(self._objects.types)):
            raise ReadError(f"{path}: extension {group} has columns with the names of spectra: {', '.join(clash)}")
        self.describe({**self._objects.types, **types}, self._objects.unreadable)
        self.describe_units({**self._objects.units, **units})
        self._of_spectra = tuple(types)

    def require(self, images: Mapping[str, tuple[int, ...]], columns: Mapping[str, int]) -> None:
        """Refuse images that do not have a row per object, or not the pixels of their arm.

        images : name -> shape. columns : name -> expected number of pixels.
        """
        for name, pixels in columns.items():
            if images[name] != (self.rows, pixels):
                raise ReadError(
                    f"{self.path}: {name} has the shape {images[name]}, expected {self.rows} objects of {pixels} pixels"
                )

    @abstractmethod
    def spectra(self, hdus: fits.HDUList, start: int, stop: int, columns: Collection[str]) -> dict[str, np.ndarray]:
        """(rows, pixels) the columns of spectra of rows `start` to `stop`."""

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        first, last = span or (0, self.rows or 0)
        of_objects = [name for name in columns if name not in self._of_spectra]
        wanted = [name for name in columns if name in self._of_spectra]
        with fits.open(self.path, memmap=False, lazy_load_hdus=True) as hdus:
            for start, stop in windows(first, last, batch_rows):
                found = {name: lists(array) for name, array in self.spectra(hdus, start, stop, wanted).items()}
                if of_objects:
                    (batch,) = self._objects.read(of_objects, stop - start, (start, stop), numeric)
                    found |= {name: batch.column(name) for name in of_objects}
                yield pa.RecordBatch.from_arrays([found[name] for name in columns], names=columns)


def section(hdus: fits.HDUList, name: str | int, start: int, stop: int) -> np.ndarray:
    """Rows `start` to `stop` of an image, without reading the others where the file is not compressed."""
    return np.asarray(hdus[name].section[start:stop])
