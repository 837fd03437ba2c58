"""Text with a header line and values between commas, tabs, semicolons or bars."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from zmill.survey.readers.text import TextTable

ENDINGS = (".csv", ".tsv")


class Reader(TextTable):
    """One CSV file."""

    def __init__(self, path: Path, group: str | None) -> None:
        super().__init__(path, aligned=False)


def example(table: pa.Table, folder: Path) -> Path:
    """Write a small table in this format, for the tests that all readers share; returns the file."""
    path = folder / "s.csv"
    pyarrow.csv.write_csv(table, path)
    return path
