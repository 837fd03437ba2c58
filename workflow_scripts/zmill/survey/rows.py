"""Conversion of a survey's columns to zmill's: positions, identifiers and the columns of its input kinds, and detection of bad rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.catalog.sky import HEALPIX_COLUMN, healpix
from zmill.columns import floats
from zmill.inputs.further import Further, Identified
from zmill.inputs.registry import kinds as kinds_of_input
from zmill.inputs.registry import of_survey as kinds_of_survey
from zmill.survey import kinds
from zmill.survey.counts import Counts
from zmill.survey.kinds import TypeChanged
from zmill.survey_definition import Survey

REASONS = (
    "",
    "position_not_finite",
    "position_out_of_range",
    "position_zero",
    "duplicate_object_id",
    "object_id_missing",
    "ebv_not_finite",
    "ebv_out_of_range",
    *(reason for kind in kinds_of_input() for reason in kind.reasons),
)
"""Reasons for which a row is rejected, by code; code 0 is a good row. Of several reasons, the first one found is recorded."""
REJECTED = pa.schema(
    [
        ("object_id", pa.string()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("reason", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
    ]
)
"""Columns of the tables of rejected rows."""
CODE = {reason: code for code, reason in enumerate(REASONS)}
EBV = "E(B-V)"
"""Name of E(B-V) among the bands."""
LOWEST_EBV, HIGHEST_EBV = -0.1, 10.0
"""E(B-V) in magnitudes lies between these: maps have noise around zero, and no galaxy is seen through more."""

Floats = NDArray[np.floating]
EbvAt = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float32]]


@dataclass(frozen=True)
class Layout:
    """The columns that are read from the survey's files, and the columns of the output.

    id_type : int64 or string.
    extra_types : of `columns.extra`: float32, int64 or string.
    """

    survey: Survey
    id_type: pa.DataType
    extra_types: tuple[pa.DataType, ...]

    def changed(self, change: TypeChanged) -> Layout:
        """The layout with another type of a column."""
        extra = zip(self.survey.columns.extra, self.extra_types, strict=True)
        types = tuple(change.type if name == change.column else kind for name, kind in extra)
        of_id = change.type if change.column == self.survey.columns.object_id else self.id_type
        return replace(self, id_type=of_id, extra_types=types)

    @property
    def schema(self) -> pa.Schema:
        """The columns of the imported survey, in order."""
        survey = self.survey
        index = [(HEALPIX_COLUMN, pa.int64())] if survey.files else []
        radec = [("ra", pa.float64()), ("dec", pa.float64())] if survey.files else []
        of_kinds = [field for kind in kinds_of_survey(survey) for field in kind.schema(survey)]
        extra = list(zip(survey.columns.extra, self.extra_types, strict=True))
        redshift = [("redshift", pa.float64())] if survey.tables else []
        return pa.schema(
            [*index, ("object_id", self.id_type), *radec, *of_kinds, ("ebv", pa.float32()), *extra, *redshift]
        )


def input_columns(survey: Survey) -> dict[str, str]:
    """The columns that a survey's files must have, each once -> the setting that names it."""
    columns = survey.columns
    found: dict[str, str] = {}
    for name in ("object_id", "ra", "dec"):
        if column := getattr(columns, name):
            found.setdefault(column, f"columns.{name}")
    for kind in kinds_of_survey(survey):
        for column, key in kind.source_columns(survey).items():
            found.setdefault(column, key)
    if columns.ebv:
        found.setdefault(columns.ebv, "columns.ebv")
    for column in columns.extra:
        found.setdefault(column, "columns.extra")
    if survey.tables and columns.redshift:
        found.setdefault(columns.redshift, "columns.redshift")
    return found


def numeric_columns(survey: Survey) -> set[str]:
    """The columns that are read as numbers, whatever the first rows of a text file contain."""
    columns = survey.columns
    of_kinds = [kind.numeric_columns(survey) for kind in kinds_of_survey(survey)]
    redshift = columns.redshift if survey.tables else None
    others = {columns.ra, columns.dec, columns.ebv, redshift} - {None}
    return set().union(*of_kinds, others) - {columns.object_id} - set(columns.extra)  # type: ignore[return-value]


def array_columns(survey: Survey) -> set[str]:
    """The columns that hold several numbers per row."""
    return set().union(*(kind.array_columns(survey) for kind in kinds_of_survey(survey)))


def typed_columns(survey: Survey) -> list[str]:
    """The columns whose type depends on the files: the identifier and `columns.extra`."""
    return [*([survey.columns.object_id] if survey.columns.object_id else []), *survey.columns.extra]


def layout_of(survey: Survey, types: Mapping[str, Sequence[pa.DataType]]) -> Layout:
    """The layout, given the types that each of `typed_columns` has in the files."""
    name = survey.columns.object_id
    of_id = kinds.id_type(types[name]) if name else pa.int64()
    return Layout(survey, of_id, tuple(kinds.extra_type(types[extra]) for extra in survey.columns.extra))


def positions(
    batch: pa.RecordBatch, survey: Survey
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]]:
    """Right ascension in [0, 360) and declination in degrees, and a reason code per row (0: good).

    A position of exactly (0, 0) is rejected, because files write it for an unknown position.
    """
    ra = floats(batch.column(survey.columns.ra)).astype(np.float64)
    dec = floats(batch.column(survey.columns.dec)).astype(np.float64)
    if survey.columns.angle_unit == "hour":
        ra = ra * 15
    elif survey.columns.angle_unit == "radian":
        ra, dec = np.degrees(ra), np.degrees(dec)
    reason = np.zeros(len(ra), np.uint8)
    reason[~(np.abs(dec) <= 90) | ~((ra >= -180) & (ra <= 360))] = CODE["position_out_of_range"]
    reason[~np.isfinite(ra) | ~np.isfinite(dec)] = CODE["position_not_finite"]
    reason[(ra == 0) & (dec == 0)] = CODE["position_zero"]
    good = reason == 0
    return np.where(good, ra % 360, ra), dec, reason


def object_ids(batch: pa.RecordBatch, layout: Layout, first_row: int) -> pa.Array:
    """The rows' identifiers as int64 or string; the row number over all files where the survey names no column.

    Raises
    ------
    TypeChanged, ReadError
        As `kinds.identifiers`.
    """
    name = layout.survey.columns.object_id
    if name is None:
        return pa.array(np.arange(first_row, first_row + batch.num_rows, dtype=np.int64))
    return kinds.identifiers(batch.column(name), layout.id_type, name)


@dataclass(frozen=True)
class Converted:
    """A batch of n rows in zmill's columns, bad rows included.

    reason : (n,) code of `REASONS` per row (0: good).
    faults : by band (or `E(B-V)`) and fault (`counts.MEANINGS`), the rows (n,) that have it.
    empty : (n,) rows of which faults leave nothing.
    """

    columns: dict[str, Any]
    reason: NDArray[np.uint8]
    faults: dict[str, dict[str, NDArray[np.bool_]]]
    empty: NDArray[np.bool_]

    def counted(self) -> Counts:
        """Counts of the rows, after all reasons are set."""
        counts = Counts(len(self.reason))
        if not self.reason.any():
            good = None
        else:
            good = self.reason == 0
            found = np.bincount(self.reason, minlength=len(REASONS)).tolist()
            counts.rejected.update({REASONS[code]: n for code, n in enumerate(found) if code and n})
        for band, faults in self.faults.items():
            for fault, rows in faults.items():
                if number := int(np.count_nonzero(rows if good is None else rows & good)):
                    counts.faults.setdefault(band, Counter())[fault] += number
        counts.unusable = int(np.count_nonzero(self.empty if good is None else self.empty & good))
        return counts


def convert(
    batch: pa.RecordBatch,
    layout: Layout,
    first_row: int,
    ebv_at: EbvAt | None = None,
    further: Further | None = None,
) -> Converted:
    """Convert a batch of the survey's columns to zmill's.

    Parameters
    ----------
    first_row : number of the batch's first row over all files.
    ebv_at : E(B-V) of positions, where it comes from a map.
    further : files that rows are completed from; None before any job, when only the survey's own are looked at.
    """
    survey = layout.survey
    columns: dict[str, Any] = {}
    reason = np.zeros(batch.num_rows, np.uint8)
    if survey.files:
        columns["ra"], columns["dec"], reason = positions(batch, survey)
        good = reason == 0
        index = np.full(batch.num_rows, -1, np.int64)
        index[good] = healpix(columns["ra"][good], columns["dec"][good])
        columns[HEALPIX_COLUMN] = index
    columns["object_id"] = object_ids(batch, layout, first_row)
    if columns["object_id"].null_count:
        _mark(reason, columns["object_id"].is_null().to_numpy(zero_copy_only=False), "object_id_missing")

    ebv: Floats = np.full(batch.num_rows, np.nan, np.float32)
    if ebv_at is not None:
        good = reason == 0
        ebv[good] = ebv_at(columns["ra"][good], columns["dec"][good])
    elif survey.columns.ebv is not None:
        ebv = floats(batch.column(survey.columns.ebv))
    columns["ebv"] = ebv
    faults: dict[str, dict[str, NDArray[np.bool_]]] = {}
    if survey.extinction.coefficients:
        _mark(reason, ~np.isfinite(ebv), "ebv_not_finite")
    strange = ~np.isnan(ebv) & ~((ebv >= LOWEST_EBV) & (ebv <= HIGHEST_EBV))
    if strange.any():
        columns["ebv"] = ebv = np.where(strange, np.nan, ebv)
        if survey.extinction.coefficients:
            _mark(reason, strange, "ebv_out_of_range")
        else:
            faults[EBV] = {"ebv_out_of_range": strange}

    empty = np.ones(batch.num_rows, np.bool_)
    if further is not None:
        unknown = np.full(batch.num_rows, np.nan)
        numbers = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
        rows = Identified(columns["object_id"], numbers, columns.get("ra", unknown), columns.get("dec", unknown))
        for found in kinds_of_survey(survey):
            batch = found.complete(batch, survey, rows, further)
    for found in kinds_of_survey(survey):
        converted = found.convert(batch, survey, ebv)
        columns |= converted.columns
        faults |= converted.faults
        empty &= converted.empty
        for why, bad in converted.rejected.items():
            _mark(reason, bad, why)
    for name, kind in zip(survey.columns.extra, layout.extra_types, strict=True):
        values = kinds.carried(batch.column(name), kind, name)
        if kind == pa.float32():
            columns[name] = floats(values)
        else:
            columns[name] = values.fill_null("") if kind == pa.string() else values
    if survey.tables:
        columns["redshift"] = floats(batch.column(survey.columns.redshift))
    return Converted(columns, reason, faults, empty)


def arrow(columns: dict[str, Any], schema: pa.Schema, chosen: NDArray[np.bool_] | None) -> pa.RecordBatch:
    """The columns as a record batch of the survey's schema; `chosen` rows only."""
    arrays = []
    for field in schema:
        values = columns[field.name]
        if isinstance(values, pa.Array):
            arrays.append(values if chosen is None else values.filter(pa.array(chosen)))
        else:
            values = values.astype(field.type.to_pandas_dtype(), copy=False)
            arrays.append(pa.array(values if chosen is None else values[chosen], type=field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def set_aside(columns: dict[str, Any], reason: NDArray[np.uint8], path: Path | str, first_row: int) -> pa.Table:
    """The rejected rows of a batch, of the columns `REJECTED`; without positions where the survey has none.

    Parameters
    ----------
    columns : of `Converted`. reason : (n,) codes of `REASONS`.
    first_row : number of the batch's first row in the file `path`.
    """
    rows = np.flatnonzero(reason)
    found: dict[str, Any] = {
        "object_id": columns["object_id"].take(pa.array(rows)).cast(pa.string()),
        **{name: pa.array(columns[name][rows]) for name in ("ra", "dec") if name in columns},
        "reason": pa.array(REASONS).take(pa.array(reason[rows])),
        "file": pa.array([str(path)] * len(rows), pa.string()),
        "row": pa.array(rows + first_row, pa.int64()),
    }
    return pa.table(found, schema=pa.schema([field for field in REJECTED if field.name in found]))


def _mark(reason: NDArray[np.uint8], where: NDArray[np.bool_], name: str) -> None:
    reason[where & (reason == 0)] = CODE[name]
