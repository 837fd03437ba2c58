"""Text with values between blanks, with or without a header line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from zmill.survey.readers.base import as_astropy
from zmill.survey.readers.text import TextTable

ENDINGS = (".dat", ".txt", ".ascii")


class Reader(TextTable):
    """One text file."""

    def __init__(self, path: Path, group: str | None) -> None:
        super().__init__(path, aligned=True)


def example(table: pa.Table, folder: Path) -> Path:
    """Write a small table in this format, for the tests that all readers share; returns the file."""
    path = folder / "s.txt"
    as_astropy(table).write(path, format="ascii.basic", overwrite=True)
    return path
