"""IPAC tables: columns of fixed width under a header between bars; held completely in memory."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from zmill.survey.readers import ecsv_format
from zmill.survey.readers.base import as_astropy

ENDINGS = (".tbl", ".ipac")


class Reader(ecsv_format.Reader):
    """One IPAC table."""

    astropy = "ascii.ipac"

    @staticmethod
    def header(text: str) -> list[str]:
        """Names of the columns."""
        line = next((line for line in text.splitlines() if line.startswith("|")), "")
        return [name.strip() for name in line.strip().strip("|").split("|")]

    @staticmethod
    def fault(text: str) -> str:
        """The first line of which a value reaches below a bar of the header or behind the last: it would be cut in two."""
        bars: list[int] = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.startswith("|"):
                bars = bars or [column for column, sign in enumerate(line) if sign == "|"]
            elif bars and line.strip() and not line.startswith("\\"):
                crossed = [column for column in bars if line[column : column + 1].strip()]
                if crossed or line[bars[-1] :].strip():
                    return (
                        f"line {number}: {line.strip()[:60]!r} has a value that reaches below a bar of the header: columns of IPAC "
                        "have a fixed width, and the value would be cut; mend the line, or write the table as CSV or Parquet"
                    )
        return ""

    @staticmethod
    def lines(text: str) -> int:
        """Number of lines with a row."""
        return sum(bool(line.strip()) and line[0] not in "\\|" for line in text.split("\n"))


def example(table: pa.Table, folder: Path) -> Path:
    """Write a small table in this format, for the tests that all readers share; returns the file."""
    path = folder / "s.tbl"
    as_astropy(table).write(path, format="ascii.ipac", overwrite=True)
    return path
