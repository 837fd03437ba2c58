"""Readers of survey and label files: one file per format, each with `ENDINGS`, a class `Reader` and `example`, and perhaps `MAGIC`.

A format that is a layout within others, as spectra in FITS files, names these in `CONTENT`, and is given by the user.

table = open_table("catalog.fits")
for batch in table.batches(["ra", "dec"], batch_rows=100_000): ...
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pyarrow as pa

from zmill.catalog.files import ReadError
from zmill.survey.readers import streams
from zmill.survey.readers.base import Span, Table
from zmill.survey_definition import formats

__all__ = ["FORMATS", "ReadError", "Span", "Table", "example", "format_of", "open_table"]

FORMATS = formats()
"""Names of the formats: the files of this folder that end with `_format`."""


def format_of(path: Path | str) -> str:
    """The format of a file by its first bytes, or else by its ending; a folder is a HATS catalogue.

    Raises
    ------
    ReadError
        Where neither determines the format.
    """
    path = Path(path)
    if path.is_dir():
        return "hats"
    if path.is_file():
        if found := streams.content_of(path):
            return found
        first = streams.head(path, 16)
        for name in FORMATS:
            if (magic := getattr(_module(name), "MAGIC", None)) and first.startswith(magic):
                return name
    endings = {ending: name for name in FORMATS for ending in _module(name).ENDINGS}
    stem = streams.stem(path.name)
    for ending in sorted(endings, key=len, reverse=True):
        if stem.endswith(ending):
            return endings[ending]
    raise ReadError(
        f"{path}: its ending determines no format; name one under format: {', '.join(FORMATS)} "
        f"(endings that are known: {', '.join(sorted(endings))})"
    )


def open_table(path: Path | str, format: str | None = None, group: str | None = None) -> Table:
    """Open a table for reading; only its header is read now.

    Parameters
    ----------
    path : a file, or the folder of a HATS catalogue or collection.
    format : one of `FORMATS`; found by the content and the ending when left out.
    group : the group of an HDF5 file, the extension of a FITS file (name or number) or the table of a VOTable.

    Raises
    ------
    ReadError
        Where the file is missing, or is not a table of this format.
    """
    path = Path(path)
    if not path.exists():
        raise ReadError(f"{path}: there is no such file")
    name = format or format_of(path)
    if name not in FORMATS:
        raise ReadError(f"{path}: there is no format {name!r}; the formats are {', '.join(FORMATS)}")
    if format is not None and path.is_file():
        found = streams.content_of(path)
        if found not in (None, *getattr(_module(format), "CONTENT", (format,))) and not (
            found == "ipac" and format in ("csv", "ascii")
        ):
            raise ReadError(
                f"{path}: is {found} by its content, not {format}; leave out `format`, or set format: {found}"
            )
    try:
        table: Table = _module(name).Reader(path, group)
    except ReadError:
        raise
    except Exception as error:
        raise ReadError(f"{path}: is not a readable {name} table: {error}") from error
    return table


def example(name: str, table: pa.Table, folder: Path) -> Path:
    """Write a small table in a format, for the tests that all readers share; returns the file, or the folder of a catalogue."""
    path: Path = _module(name).example(table, folder)
    return path


def _module(name: str):  # type: ignore[no-untyped-def]
    return importlib.import_module(f"{__name__}.{name}_format")
