"""Text with values between blanks, with or without a header line."""

from __future__ import annotations

from pathlib import Path

from zmill.survey.readers.text import TextTable

ENDINGS = (".dat", ".txt", ".ascii")


class Reader(TextTable):
    """One text file."""

    def __init__(self, path: Path, group: str | None) -> None:
        super().__init__(path, aligned=True)
