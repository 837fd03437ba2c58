"""Text with a header line and values between commas, tabs, semicolons or bars."""

from __future__ import annotations

from pathlib import Path

from zmill.survey.readers.text import TextTable

ENDINGS = (".csv", ".tsv")


class Reader(TextTable):
    """One CSV file."""

    def __init__(self, path: Path, group: str | None) -> None:
        super().__init__(path, aligned=False)
