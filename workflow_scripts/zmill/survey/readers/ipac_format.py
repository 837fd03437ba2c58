"""IPAC tables: columns of fixed width under a header between bars; held in memory as a whole."""

from __future__ import annotations

from zmill.survey.readers import ecsv_format

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
    def lines(text: str) -> int:
        """Number of lines that hold a row."""
        return sum(bool(line.strip()) and line[0] not in "\\|" for line in text.split("\n"))
