"""Check of the files that a survey definition names, before any job starts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from zmill.config import ConfigError
from zmill.inputs.further import Further
from zmill.inputs.registry import further_files, of_survey
from zmill.survey import kinds
from zmill.survey.readers import ReadError, Span, Table, format_of, open_table
from zmill.survey.readers.text import TextTable
from zmill.survey.rows import array_columns, input_columns, numeric_columns, typed_columns
from zmill.survey.units import unit_faults
from zmill.survey_definition import Survey
from zmill.workflow.input_files import resolve
from zmill.workflow.job import log

THREADS = 8
"""Headers that are read in parallel."""
LOOK_ROWS = 1000
BATCH_ROWS = 65_536
MOST_FAULTS = 30
"""Largest number of faults that are listed."""


@dataclass(frozen=True)
class Header:
    """Facts of a file that are known before its rows are read.

    format : its format. spans : its pieces.
    types : of the required columns that exist, from the header, or from the first rows of text files (`is_text`).
    shapes, units, warnings : shapes of arrays and units that the file states, and warnings of its reader.
    faults : one line per fault: no table, a missing column, or a column without the required numbers.
    """

    path: Path
    format: str = ""
    is_text: bool = False
    spans: list[Span] = field(default_factory=list)
    types: dict[str, pa.DataType] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def read_header(
    path: Path,
    named: Mapping[str, str],
    numeric: Collection[str],
    format_: str | None,
    group: str | None,
    piece_rows: int = 1_000_000,
    arrays: Collection[str] = (),
) -> Header:
    """Open a file and look for columns.

    Parameters
    ----------
    named : required column -> the setting that names it.
    numeric : the columns that must hold numbers.
    format_, group : as `open_table` takes them.
    piece_rows : rows of a piece.
    arrays : the columns that must hold several numbers per row.
    """
    try:
        format_ = format_ or format_of(path)
        table = open_table(path, format_, group)
    except ReadError as error:
        return Header(path, faults=(str(error),))
    lacks = {name: table.lacks(name, key, name in arrays) for name, key in named.items()}
    faults = [f"{path}: {lack}" for lack in _by_setting(lacks, named)]
    try:
        types = {name: table.type_of(name) for name, lack in lacks.items() if not lack}
    except ReadError as error:
        return Header(path, faults=(*faults, str(error)))
    for name in numeric:
        if name in types and not kinds.is_number(types[name]):
            faults += _no_numbers(table, name, named[name])
    is_text = isinstance(table, TextTable)
    spans = table.spans(piece_rows)
    return Header(path, format_, is_text, spans, types, table.shapes, table.units, table.warnings, tuple(faults))


def _by_setting(lacks: Mapping[str, str], named: Mapping[str, str]) -> list[str]:
    """One fault per setting that names missing columns: a wrong template is one fault, not one per band."""
    columns: dict[str, list[str]] = {}
    for name, lack in lacks.items():
        if lack:
            columns.setdefault(named[name].partition(" of band ")[0], []).append(name)
    return [
        lacks[first] + (f"; the same for {', '.join(map(repr, others))}" if others else "")
        for first, *others in columns.values()
    ]


def _no_numbers(table: Table, name: str, key: str) -> list[str]:
    """The fault of a column without numeric type whose values are no numbers; text may hold numbers."""
    try:
        for _ in table.batches([name], LOOK_ROWS, table.spans(LOOK_ROWS)[0] if table.rows else None, numeric=[name]):
            break
    except ReadError as error:
        return [f"{error} ({key})"]
    return []


def read_headers(files: Sequence[Path], survey: Survey, piece_rows: int = 1_000_000) -> list[Header]:
    """The headers of all files of a survey, and the first rows of text files, read in parallel.

    piece_rows : as `read_header` takes it.
    """
    named, numeric, arrays = input_columns(survey), numeric_columns(survey), array_columns(survey)
    with ThreadPoolExecutor(THREADS) as pool:
        headers = pool.map(
            lambda path: read_header(path, named, numeric, survey.format, survey.group, piece_rows, arrays), files
        )
        return [replace(one, faults=(*one.faults, *shape_faults(one.path, one.shapes, survey))) for one in headers]


def shape_faults(path: Path, shapes: Mapping[str, tuple[int, ...]], survey: Survey) -> list[str]:
    """A line for each column of a file whose shape contradicts the survey definition."""
    found = [kind.wrong_shapes(shapes, survey) for kind in of_survey(survey)]
    return [f"{path}: column {column!r} {why}" for wrong in found for column, why in wrong.items()]


def further_of(survey: Survey, data_dir: Path) -> Further:
    """The further files of a survey that exist.

    Raises
    ------
    ConfigError
        Where there is none of a setting.
    """
    patterns = further_files(survey)
    return Further({key: tuple(resolve(some, data_dir, key)) for key, some in patterns.items()}, open_table)


def further_faults(survey: Survey, further: Further, headers: Sequence[Header]) -> list[str]:
    """What is wrong with the further files of a survey, one line each."""
    spans = [span for header in headers for span in header.spans]
    rows = None if None in spans else sum(stop - start for start, stop in filter(None, spans))
    return [fault for kind in of_survey(survey) for fault in kind.further_faults(survey, further, rows)]


def types_over(headers: Sequence[Header], survey: Survey) -> tuple[dict[str, list[pa.DataType]], list[str]]:
    """The types of `typed_columns` in the files, and a line for each column that is text in some and a number in others.

    A column without values fits every type. A column of a text file has the kind that it has in the other files.
    """
    types: dict[str, list[pa.DataType]] = {}
    faults = []
    for name in typed_columns(survey):
        found = [(header, header.types[name]) for header in headers if name in header.types]
        if len({kinds.is_number(kind) for header, kind in found if not header.is_text}) > 1:
            found = [
                (header, kind if header.is_text else _filled(header, name, kind, survey)) for header, kind in found
            ]
            typed = [(header, kind) for header, kind in found if not header.is_text and not pa.types.is_null(kind)]
            number = [header.path for header, kind in typed if kinds.is_number(kind)]
            other = [(header.path, kind) for header, kind in typed if not kinds.is_number(kind)]
            if number and other:
                faults.append(
                    f"{other[0][0]}: column {name!r} ({input_columns(survey)[name].removeprefix('columns.')}) is text in some files and a "
                    f"number in others: {len(other)} like this one ({other[0][1]}), {len(number)} like {number[0]}: make them alike"
                )
        types[name] = [kind for _, kind in found]
    return types, faults


def _filled(header: Header, name: str, kind: pa.DataType, survey: Survey) -> pa.DataType:
    """The type of a column, or null where it has no value in this file."""
    for batch in open_table(header.path, header.format, survey.group).batches([name], BATCH_ROWS, text=[name]):
        if batch.column(0).null_count < batch.num_rows:
            return kind
    return pa.null()


def check_columns(
    files: Sequence[Path], survey: Survey, further: Mapping[str, Sequence[str]] | None = None
) -> dict[str, pa.DataType]:
    """Open the existing files and check the survey's columns.

    Parameters
    ----------
    further : setting -> further files of the survey, which are checked once all of them exist; None: they are not checked.

    Returns
    -------
    The types of `columns.extra` over all files, where there are files.

    Raises
    ------
    ConfigError
        The message has one line per fault: missing columns with the file and the nearest name, differences between files, and
        units that contradict the definition.
    """
    headers = read_headers([path for path in files if path.exists()], survey)
    faults = _grouped(headers)
    faults += [f"{header.path}: {fault}" for header in headers for fault in unit_faults(header.units, survey)]
    types, differences = types_over(headers, survey)
    more = {key: tuple(map(Path, paths)) for key, paths in (further or {}).items()}
    if further is not None and not faults and all(path.exists() for paths in more.values() for path in paths):
        complete = len(headers) == len(files)
        faults += further_faults(
            survey, Further(more, open_table), headers if complete else [Header(Path(), spans=[None])]
        )
    if faults or differences:
        raise ConfigError("\n".join(_shortened([*faults, *differences])))
    for warning in dict.fromkeys(warning for header in headers for warning in header.warnings):
        log.warning("%s", warning)
    return {name: kinds.extra_type(types[name]) for name in survey.columns.extra} if headers else {}


def column_faults(
    files: Collection[Path],
    named: Iterable[tuple[str, str]],
    format_: str | None = None,
    group: str | None = None,
    numeric: Collection[str] = (),
    of_units: Callable[[Mapping[str, str]], list[str]] = lambda units: [],
) -> list[str]:
    """The faults of files, one line per cause: no table, missing columns, or contradictory units.

    named : (setting, name) of every required column.
    numeric : names of the columns that must hold numbers.
    format_, group : as `open_table` takes them.
    of_units : returns one sentence per contradictory unit, from the units of a file by column.
    """
    keys = {name: key for key, name in named}
    headers = [read_header(path, keys, numeric, format_, group) for path in files]
    headers = [replace(header, faults=(*header.faults, *of_units(header.units))) for header in headers]
    return _shortened(_grouped(headers))


def _grouped(headers: Iterable[Header]) -> list[str]:
    """Each fault once, with the first file and the number of other files that have it."""
    files: dict[str, list[Path]] = {}
    for header in headers:
        for fault in header.faults:
            files.setdefault(fault.removeprefix(f"{header.path}: "), []).append(header.path)
    return [
        f"{paths[0]}: {cause}" + (f" (and the same in {len(paths) - 1} more files)" if len(paths) > 1 else "")
        for cause, paths in files.items()
    ]


def _shortened(faults: list[str]) -> list[str]:
    """The first faults, and how many more there are."""
    if len(faults) <= MOST_FAULTS:
        return faults
    return [*faults[:MOST_FAULTS], f"and {len(faults) - MOST_FAULTS} faults more"]
