"""VOTable of any serialisation, through astropy, which holds the complete table in memory."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from astropy.io import votable
from astropy.io.votable import exceptions

from zmill.catalog.files import ReadError
from zmill.survey.readers.base import as_astropy, refuse_repeated
from zmill.survey.readers.held import ALONE, Held
from zmill.survey.readers.streams import opened
from zmill.survey.readers.text import MISSING

ENDINGS = (".vot", ".votable", ".xml")
CHANGES = {
    exceptions.W30: "a value of a field of numbers is none, and would be missing",
    exceptions.W46: "a text is longer than its field says, and would be cut",
    exceptions.W51: "a whole number is beyond the type of its field, and would be another one",
}
"""Changes that astropy makes to a value, by its warning."""


class Reader(Held):
    """One table of a VOTable: the one of this ID or name, or the only one; a field goes by its name, or by its ID.

    A service that failed (QUERY_STATUS = ERROR) is refused in its own words; one that cut the table at its limit
    (OVERFLOW) is a warning.
    """

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        with opened(path) as file, _exactly(path):
            document = votable.parse(file, verify="warn")
        statuses = [info for info in _infos(document) if str(info.name).upper() == "QUERY_STATUS"]
        for info in statuses:
            if str(info.value).upper() == "ERROR":
                raise ReadError(
                    f"{path}: the service that wrote it reports an error: {info.content or 'without a word why'}"
                )
        if any(str(info.value).upper() == "OVERFLOW" for info in statuses):
            self.warnings = (
                f"{path}: the service that wrote it cut the table at its limit of rows (QUERY_STATUS = OVERFLOW): rows are missing",
            )
        tables = list(document.iter_tables())
        chosen = [t for t in tables if group is None or group in (t.ID, t.name)]
        names = ", ".join(str(t.ID or t.name or f"number {n}") for n, t in enumerate(tables, 1))
        if not chosen:
            raise ReadError(f"{path}: there is no table {group!r}; there is: {names or 'none'}")
        if len(chosen) > 1:
            raise ReadError(f"{path}: holds {len(chosen)} tables: {names}; name one under `group`, by its ID or name")
        fields, array = chosen[0].fields, chosen[0].array
        refuse_repeated(path, [field.name or field.ID for field in fields])
        self.hold(
            {field.name or field.ID: array[field.ID] for field in fields},
            len(array),
            {field.name or field.ID: str(field.unit) for field in fields if field.unit},
        )
        # astropy writes the lengths of the axes in the order of NumPy, the standard has the reverse: a file does not tell which one it has.
        self.describe(self.types, self.unreadable)


@contextmanager
def _exactly(path: Path) -> Iterator[None]:
    """Refuse values that astropy would change with only a warning; other warnings are ignored."""
    changed: list[str] = []

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if changed or not isinstance(message, tuple(CHANGES)):
            return
        word = re.search(r"Invalid literal for float '(.*)'", str(message))
        if word is None or word[1].strip() not in MISSING:
            line = re.search(r":(\d+):\d+: W\d\d: ", str(message))
            where = f"line {line[1]}: " if line else ""
            changed.append(f"{path}: {where}{CHANGES[type(message)]} ({str(message).rsplit(': ', 1)[-1]})")

    with ALONE, exceptions.conf.set_temp("max_warnings", sys.maxsize), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield
    if changed:
        raise ReadError(f"{changed[0]}: mend the file, or leave the column out of it")


def _infos(document: Any) -> list[Any]:
    """INFO elements of the document, its resources and its tables."""
    found = list(document.infos)
    resources = list(document.resources)
    while resources:
        resource = resources.pop()
        found += resource.infos
        resources += resource.resources
    return found + [info for table in document.iter_tables() for info in table.infos]


def example(table: pa.Table, folder: Path) -> Path:
    """Write a small table in this format, for the tests that all readers share; returns the file."""
    path = folder / "s.vot"
    as_astropy(table).write(path, format="votable", overwrite=True)
    return path
