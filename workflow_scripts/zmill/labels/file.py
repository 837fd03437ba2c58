"""Spectroscopic redshifts from files, in any format that the survey's readers know."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, field_validator, model_validator

from zmill.config import ConfigError, Section, nearest
from zmill.labels.base import LabelsError, Request, SourceSettings, entry_table
from zmill.labels.quality import SCHEMES, Flags, Judged, by_table, kind_reason, nothing, numbers, texts
from zmill.survey.check import resolve
from zmill.survey.readers import FORMATS, ReadError, open_table

LIGHT_KM_S = 299_792.458
HIGHEST_REDSHIFT = 20.0
"""No spectroscopic redshift is above this; larger numbers are velocities or mark a missing value."""
BATCH_ROWS = 200_000
TRUE = {"1", "T", "TRUE", "Y", "YES"}

Quality = Annotated[int, Field(ge=0, le=4)]


class LabelColumns(Section):
    """Which column holds what."""

    model_config = ConfigDict(populate_by_name=True)

    ra: str
    dec: str
    redshift: str
    redshift_err: str | None = None
    flag: str | None = None
    """The survey's own quality flag."""
    kind: str | None = Field(default=None, alias="class")
    """The object's class: star, galaxy, QSO, or whether its redshift is photometric. The key is `class`."""
    id: str | None = None
    """The spectrum's identifier; without one, the row number over all files is used."""
    primary: str | None = None
    """True for the best of several spectra of one object (SDSS `sciencePrimary`)."""
    velocity: str | None = None
    """A radial velocity: entries that have it and no redshift are rejected as `velocity_only`."""
    magnitude: str | None = None
    """A magnitude, carried along."""


class QualityMap(Section):
    """A table of flags."""

    map: dict[str, Quality]
    """Quality of each flag."""
    default: Quality = 0
    """Quality of flags that the map does not name."""

    @field_validator("map", mode="before")
    @classmethod
    def _keys_as_text(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key if isinstance(key, str) else f"{key:.10g}": quality for key, quality in value.items()}


class Settings(SourceSettings):
    """An entry of `labels:` with `source: file`."""

    files: Annotated[list[str], Field(min_length=1)]
    """Paths or glob patterns, below `data_dir` unless absolute."""
    format: str | None = None
    """Read from the file's ending when left out."""
    group: str | None = None
    """The group of an HDF5 file or the extension of a FITS file."""
    columns: LabelColumns
    scheme: str | None = None
    """A survey whose flags zmill knows."""
    quality: Quality | QualityMap | None = None
    """Instead of a scheme: one quality for all entries, or `map:` from flags to qualities with a `default:`."""
    angle_unit: Literal["degree", "hour", "radian"] = "degree"
    """Unit of ra and dec (`hour` holds for ra alone)."""
    redshift_unit: Literal["z", "km/s"] = "z"
    """`km/s`: the column holds cz."""

    @model_validator(mode="after")
    def _judged_once(self) -> Settings:
        if (self.scheme is None) == (self.quality is None):
            raise ValueError("give either scheme (a survey whose flags are known) or quality (a number or a map)")
        if self.format is not None and self.format not in FORMATS:
            raise ValueError(f"there is no format {self.format!r}; the formats are {', '.join(FORMATS)}")
        if self.scheme is not None:
            if self.scheme not in SCHEMES:
                raise ValueError(
                    f"there is no scheme {self.scheme!r}{nearest(self.scheme, list(SCHEMES))}; "
                    f"the schemes are {', '.join(sorted(SCHEMES))}"
                )
            lacking = [key for key in SCHEMES[self.scheme].needs if self._column(key) is None]
            if lacking:
                raise ValueError(f"scheme {self.scheme} needs columns.{' and columns.'.join(lacking)}")
        if isinstance(self.quality, QualityMap) and self.columns.flag is None:
            raise ValueError("quality.map needs columns.flag")
        return self

    def _column(self, key: str) -> str | None:
        value: str | None = getattr(self.columns, "kind" if key == "class" else key)
        return value

    def named(self) -> dict[str, str]:
        """The file's column for each key that is given."""
        return {key: value for key, value in self.columns.model_dump().items() if value is not None}


NUMERIC = ("ra", "dec", "redshift", "redshift_err", "velocity", "magnitude")


def inputs(settings: Settings, data_dir: Path, made: Collection[Path]) -> list[Path]:
    """The files that fit the settings; those that exist are opened and their columns checked.

    Raises
    ------
    ConfigError
        Where a file or a column is missing.
    """
    key = f"labels: {settings.name}: files"
    files = resolve(settings.files, data_dir, key, made)
    for path in files:
        if path.exists():
            _check_columns(settings, path)
    return files


def entries(settings: Settings, request: Request) -> Iterator[pa.Table]:
    """Every row of the files as an entry.

    Raises
    ------
    LabelsError
        Where the numbers cannot be what the settings say: velocities for redshifts, degrees for hours.
    """
    first_row = suspicious = valid = 0
    named = settings.named()
    columns = list(dict.fromkeys(named.values()))
    numeric = list(dict.fromkeys(named[key] for key in NUMERIC if key in named))
    for path in resolve(settings.files, request.data_dir, f"labels: {settings.name}: files"):
        table = open_table(path, settings.format, settings.group)
        for batch in table.batches(columns, BATCH_ROWS, numeric=numeric):
            raw = {key: _array(batch[column]) for key, column in named.items()}
            _refuse_degrees(settings, raw["ra"], path)
            usable = np.isfinite(raw["redshift"]) & (raw["redshift"] > 0)
            valid += int(usable.sum())
            suspicious += int((raw["redshift"][usable] > HIGHEST_REDSHIFT).sum())
            yield _entries(settings, raw, first_row)
            first_row += batch.num_rows
        if settings.redshift_unit == "z" and suspicious > valid / 2:
            raise LabelsError(
                f"labels: {settings.name}: {path}: {suspicious} of {valid} values of {settings.columns.redshift!r} are "
                f"above {HIGHEST_REDSHIFT:g}: this is no redshift but a velocity; set redshift_unit: km/s"
            )


def _entries(settings: Settings, raw: dict[str, NDArray[Any]], first_row: int) -> pa.Table:
    rows = len(raw["ra"])
    scale = LIGHT_KM_S if settings.redshift_unit == "km/s" else 1.0
    redshift = raw["redshift"] / scale
    error = raw["redshift_err"] / scale if "redshift_err" in raw else np.full(rows, np.nan)
    ra, dec = _degrees(settings, raw["ra"], raw["dec"])
    flags = Flags(
        rows,
        flag=texts(raw["flag"]) if "flag" in raw else None,
        kind=texts(raw["kind"]) if "kind" in raw else None,
        redshift_err=error if "redshift_err" in raw else None,
        primary=_true(raw["primary"]) if "primary" in raw else None,
    )
    quality, reason = _judge(settings, flags)
    missing = ~np.isfinite(redshift) | (redshift <= -1)
    moving = missing & np.isfinite(raw["velocity"]) if "velocity" in raw else np.zeros(rows, bool)
    of_number = np.select(
        [moving, missing, redshift > HIGHEST_REDSHIFT], ["velocity_only", "no_redshift", "redshift_out_of_range"], ""
    )
    columns: dict[str, Any] = {
        "specz_id": texts(raw["id"]) if "id" in raw else np.arange(first_row, first_row + rows).astype(np.str_),
        "ra": ra,
        "dec": dec,
        "redshift": redshift,
        "redshift_err": np.where(error > 0, error, np.nan).astype(np.float32),
        "quality": quality,
        "reason": np.where(reason != "", reason, of_number),
    }
    if flags.flag is not None:
        columns["source_flag"] = flags.flag
    if "magnitude" in raw:
        columns["magnitude"] = raw["magnitude"].astype(np.float32)
    return entry_table(columns)


def _judge(settings: Settings, flags: Flags) -> Judged:
    if settings.scheme is not None:
        quality, reason = SCHEMES[settings.scheme].judge(flags)
    elif isinstance(settings.quality, QualityMap):
        assert flags.flag is not None  # the settings were validated so
        quality, reason = by_table(dict(settings.quality.map), flags.flag, settings.quality.default)
    else:
        quality, reason = nothing(flags.rows, settings.quality or 0)
    if flags.kind is not None and settings.scheme != "ned":
        reason = np.where(reason != "", reason, kind_reason(flags.kind))
    return quality, reason


def _degrees(
    settings: Settings, ra: NDArray[np.float64], dec: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if settings.angle_unit == "hour":
        return ra * 15, dec
    if settings.angle_unit == "radian":
        return np.degrees(ra), np.degrees(dec)
    return ra, dec


def _refuse_degrees(settings: Settings, ra: NDArray[np.float64], path: Path) -> None:
    if settings.angle_unit == "hour" and np.nanmax(ra, initial=0) > 24:
        raise LabelsError(
            f"labels: {settings.name}: {path}: {settings.columns.ra!r} reaches {np.nanmax(ra):g}, which is no right "
            "ascension in hours; set angle_unit: degree"
        )


def _check_columns(settings: Settings, path: Path) -> None:
    where = f"labels: {settings.name}"
    try:
        columns = open_table(path, settings.format, settings.group).columns
    except ReadError as error:
        raise ConfigError(f"{where}: {error}") from None
    faults = [
        f"{where}: {path}: there is no column {column!r} (columns.{'class' if key == 'kind' else key})"
        f"{nearest(column, columns) or '; its columns are ' + ', '.join(columns[:20])}"
        for key, column in settings.named().items()
        if column not in columns
    ]
    if faults:
        raise ConfigError("\n".join(faults))


def _true(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind == "b":
        return values.astype(bool)
    text = texts(values)
    return np.isin(np.char.upper(text), list(TRUE)) | (np.nan_to_num(numbers(text)) > 0)


def _array(column: pa.Array) -> NDArray[Any]:
    if pa.types.is_floating(column.type) and column.null_count:
        column = column.fill_null(float("nan"))
    array: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return array
