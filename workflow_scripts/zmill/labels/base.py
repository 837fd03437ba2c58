"""The interface of a source of spectroscopic redshifts: a module of this folder with `Settings` and `entries`.

Settings                      pydantic class (of `SourceSettings`) with the keys of the source; a source that reads files has
                              the key `files` and a method `check(files)`, which refuses unreadable files before any job
entries(settings, request)    yields tables of `ENTRY`, one row for each row of the source
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.catalog.footprint import Footprint
from zmill.config import ConfigError, Name, Radius, Section, nearest, parse
from zmill.redact import redact
from zmill.survey_definition import LabelSource, Survey
from zmill.workflow.warning import Warnings

ENTRY = pa.schema(
    [
        ("specz_id", pa.string()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("redshift", pa.float64()),
        ("redshift_err", pa.float32()),
        ("quality", pa.int8()),
        ("source_flag", pa.string()),
        ("magnitude", pa.float32()),
        ("reason", pa.string()),
        ("unknown", pa.string()),
    ]
)
"""An entry of a source: position in degrees, quality from 0 to 4, the source's own flag, a magnitude if there is one,
`reason` (why the source's flags reject the entry; empty where they accept it) and `unknown` (the flag or class that the
scheme does not know; empty where it knows both). Unknown numbers are NaN."""


class LabelsError(Exception):
    """Labels cannot be used; the message names the fault, its location, and what to do."""


class SourceSettings(Section):
    """The keys that every entry of a survey's `labels:` has."""

    name: Name
    source: Name = "file"
    radius_arcsec: Radius | None = None


@dataclass(frozen=True)
class Request:
    """A request for the entries of a source.

    Attributes
    ----------
    data_dir : folder that relative paths start from.
    footprint : the part of the sky that labels are wanted for; a source may yield entries outside of it.
    cache : folder where a service's answers are kept.
    notes : warnings about the entries; they are written to `labels.json` and shown at the head of the report.
    answers : for each service, the time of the oldest answer in use and the days for which it is valid.
    """

    data_dir: Path
    footprint: Footprint
    cache: Path
    notes: Warnings = field(default_factory=Warnings)
    answers: list[tuple[datetime, float | None]] = field(default_factory=list)

    def warn(self, note: str) -> None:
        """Log a warning, and add it to the notes."""
        self.notes.add(redact(note))


class Source(Protocol):
    """A module of this folder that is a source."""

    Settings: type[SourceSettings]

    def entries(self, settings: Any, request: Request) -> Iterator[pa.Table]:
        """Tables of `ENTRY`."""


def source_of(label: LabelSource) -> tuple[Source, Any]:
    """The source's module and its validated settings.

    Raises
    ------
    ConfigError
        Where there is no such source, or one of its keys is wrong.
    """
    where = f"labels: {label.name}"
    package = importlib.import_module("zmill.labels")
    files = {info.name for info in pkgutil.iter_modules(package.__path__)}
    found = importlib.import_module(f"zmill.labels.{label.source}") if label.source in files else None
    if not hasattr(found, "Settings"):
        known = sources()
        raise ConfigError(
            f"{where}: there is no source {label.source!r}{nearest(label.source, sorted(known))}; "
            f"the sources are {', '.join(sorted(known))}"
        )
    module = cast(Source, found)
    return module, parse(module.Settings, label.model_dump(exclude={"files"} if label.files is None else None), where)


def sources() -> dict[str, ModuleType]:
    """The modules of this folder that are sources, by name."""
    package = importlib.import_module("zmill.labels")
    modules = {
        info.name: importlib.import_module(f"zmill.labels.{info.name}")
        for info in pkgutil.iter_modules(package.__path__)
    }
    return {name: module for name, module in modules.items() if hasattr(module, "Settings")}


def check(survey: Survey, files: Mapping[str, Sequence[str]]) -> None:
    """Check settings, files and columns of all label sources of the survey, without reading rows.

    Parameters
    ----------
    files : of each source, by its name; files that do not exist yet are not checked.

    Raises
    ------
    ConfigError
        The message names the source and the fault.
    """
    if not survey.labels:
        raise ConfigError("labels: no source of spectroscopic redshifts; name at least one under labels:")
    for label in survey.labels:
        _, settings = source_of(label)
        there = [path for path in map(Path, files[label.name]) if path.exists()]
        if there:
            settings.check(there)


def entry_table(columns: dict[str, NDArray[Any] | pa.Array]) -> pa.Table:
    """A table of `ENTRY` from its columns; `redshift_err`, `magnitude`, `source_flag` and `unknown` may be left out."""
    rows = len(columns["ra"])
    defaults = {
        "redshift_err": np.full(rows, np.nan, np.float32),
        "magnitude": np.full(rows, np.nan, np.float32),
        "source_flag": np.full(rows, ""),
        "unknown": np.full(rows, ""),
    }
    filled = {**defaults, **columns}
    return pa.table({field.name: pa.array(filled[field.name], type=field.type) for field in ENTRY}, schema=ENTRY)
