"""ECSV: CSV with types and units in comments, as astropy writes it; held completely in memory."""

from __future__ import annotations

import warnings
from pathlib import Path

import pyarrow as pa
from astropy.table import Column, Table

from zmill.catalog.files import ReadError
from zmill.survey.readers.base import as_astropy, decoded, refuse_repeated
from zmill.survey.readers.held import ALONE, Held
from zmill.survey.readers.streams import opened

ENDINGS = (".ecsv",)


class Reader(Held):
    """One ECSV file; objects that astropy builds of several columns (a SkyCoord, a Time) are not read."""

    astropy = "ascii.ecsv"

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        with opened(path) as file:
            text = decoded(bytes(file.read())) or ""
        refuse_repeated(path, self.header(text))
        if fault := self.fault(text):
            raise ReadError(f"{path}: {fault}")
        with ALONE, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = Table.read(text.splitlines(), format=self.astropy)
        lines = self.lines(text)
        if lines != len(table):
            raise ReadError(
                f"{path}: {lines} lines hold {len(table)} rows: a quotation mark opens and does not close on its line"
            )
        plain = {name: column for name, column in table.columns.items() if isinstance(column, Column)}
        self.hold(plain, len(table), {name: str(column.unit) for name, column in plain.items() if column.unit})
        others = {
            n: f"is a {type(c).__name__} of astropy: write its numbers as columns" for n, c in table.columns.items()
        }
        self.unreadable = {**self.unreadable, **{n: reason for n, reason in others.items() if n not in plain}}

    @staticmethod
    def header(text: str) -> list[str]:
        """Names of the columns."""
        line = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
        return line.split("," if "," in line else None)

    @staticmethod
    def fault(text: str) -> str:
        """Why the text is no such table, where astropy would read it as one."""
        return ""

    @staticmethod
    def lines(text: str) -> int:
        """Number of lines with a row."""
        return sum(bool(line.strip()) and not line.startswith("#") for line in text.split("\n")) - 1


def example(table: pa.Table, folder: Path) -> Path:
    """Write a small table in this format, for the tests that all readers share; returns the file."""
    path = folder / "s.ecsv"
    as_astropy(table).write(path, format="ascii.ecsv", overwrite=True)
    return path
