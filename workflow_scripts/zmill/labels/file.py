"""Spectroscopic redshifts from files, in any format that the survey's readers support."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from zmill.config import ConfigError
from zmill.labels.base import LabelsError, Request
from zmill.labels.judging import Judging
from zmill.labels.redshifts import HIGHEST_REDSHIFT
from zmill.labels.rows import rows
from zmill.sections import PathText, Text, shown
from zmill.survey.check import column_faults
from zmill.survey.readers import FORMATS, open_table
from zmill.survey.readers.base import EXACT, exact_text
from zmill.survey.units import wrong_angle
from zmill.units import LIGHT_SPEED_KM_S, is_velocity
from zmill.workflow.input_files import resolve

NUMERIC = ("ra", "dec", "redshift", "redshift_err", "velocity", "magnitude")
"""Keys of `columns` whose columns are read as numbers; all other columns are read as exact text."""
DECIMAL = r"^([+-]?\d+)(?:\.0*|(\.\d*[1-9])0*)$"
"""A number written with a point: 4.0 is the flag 4, and 3.50 is 3.5."""
BATCH_ROWS = 50_000
"""Rows read at a time: of SDSS, whose rows are 1.3 kB wide, 65 MB."""


class Settings(Judging):
    """An entry of `labels:` with `source: file`."""

    files: Annotated[list[PathText], Field(min_length=1)]
    """Paths or glob patterns, below `data_dir` unless absolute."""
    format: Text | None = None
    """Read from the file's ending when left out."""
    group: Text | None = None
    """The group of an HDF5 file or the extension of a FITS file."""
    angle_unit: Literal["degree", "hour", "radian"] = "degree"
    """Unit of ra and dec (`hour` holds for ra alone)."""
    redshift_unit: Literal["z", "km/s"] = "z"
    """`km/s`: the column holds cz."""
    check_units: bool = True
    """Whether the units stated in a file are compared with `angle_unit` and `redshift_unit`."""

    @model_validator(mode="after")
    def _known_format(self) -> Settings:
        if self.format is not None and self.format not in FORMATS:
            raise ValueError(f"there is no format {shown(self.format)}; the formats are {', '.join(FORMATS)}")
        return self

    def check(self, files: Collection[Path]) -> None:
        """Open the files and look for the columns.

        Raises
        ------
        ConfigError
            Where a file is not a table, a column is missing, or the file states another unit than the settings.
        """
        named = [(f"columns.{'class' if key == 'kind' else key}", column) for key, column in self.named().items()]
        numeric = self.columns_of(NUMERIC)
        faults = column_faults(files, named, self.format, self.group, numeric, self._unit_faults)
        if faults:
            raise ConfigError("\n".join(f"labels: {self.name}: {fault}" for fault in faults))

    def _unit_faults(self, units: Mapping[str, str]) -> list[str]:
        """One sentence per unit of a file that contradicts the settings."""
        if not self.check_units:
            return []
        named = self.named()
        faults = {}
        for key in ("ra", "dec"):
            column = named.get(key, "")
            faults[column] = wrong_angle(units.get(column, ""), self.angle_unit, key == "dec", "angle_unit")
        for key in ("redshift", "redshift_err"):
            column = named.get(key, "")
            if (text := units.get(column, "")) and self.redshift_unit == "z" and is_velocity(text):
                faults[column] = f"in {text!r}, but redshift_unit is 'z': write redshift_unit: km/s"
        return [
            f"column {column!r}: {fault}; where the file is wrong about itself, check_units: false leaves this out"
            for column, fault in faults.items()
            if fault
        ]

    def columns_of(self, keys: Sequence[str]) -> list[str]:
        """The file's columns of some of the keys of `columns`, each once."""
        named = self.named()
        return list(dict.fromkeys(named[key] for key in keys if key in named))


def entries(settings: Settings, request: Request) -> Iterator[pa.Table]:
    """Every row of the files as an entry.

    Raises
    ------
    LabelsError
        Where the values contradict the settings: velocities instead of redshifts, or degrees instead of hours.
    """
    first_row = suspicious = valid = 0
    named = settings.named()
    columns = list(dict.fromkeys(named.values()))
    numeric = settings.columns_of(NUMERIC)
    for path in resolve(settings.files, request.data_dir, f"labels: {settings.name}: files"):
        table = open_table(path, settings.format, settings.group)
        for warning in table.warnings:
            request.warn(f"labels: {settings.name}: {warning}")
        for batch in table.batches(columns, BATCH_ROWS, numeric=numeric):
            raw = {key: _array(key, batch[column], settings, path) for key, column in named.items()}
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
    scale = LIGHT_SPEED_KM_S if settings.redshift_unit == "km/s" else 1.0
    ra, dec = _degrees(settings, raw["ra"], raw["dec"])
    columns = {**raw, "ra": ra, "dec": dec, "redshift": raw["redshift"] / scale}
    if "redshift_err" in raw:
        columns["redshift_err"] = raw["redshift_err"] / scale
    return rows(columns, settings, first_row)


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


def _array(key: str, column: pa.Array, settings: Settings, path: Path) -> NDArray[Any]:
    """A column as numbers, NaN where there is none, or as text, empty where there is none."""
    if key in NUMERIC:
        return np.asarray(column.cast(pa.float64()).fill_null(float("nan")))
    if key == "id" and pa.types.is_floating(column.type):
        numbers = np.abs(column.drop_null().to_numpy())
        if (numbers[np.isfinite(numbers)] > EXACT[column.type]).any():
            raise LabelsError(
                f"labels: {settings.name}: {path}: column {settings.columns.id!r} (columns.id) holds floats such as "
                f"{np.nanmax(numbers):g}: identifiers of so many digits were rounded and no longer identify spectra; leave "
                "columns.id out, or write the column as integers or text"
            )
    text = exact_text(column).fill_null("")
    if key == "flag":
        text = pc.replace_substring_regex(text, DECIMAL, r"\1\2")
    array: NDArray[Any] = text.to_numpy(zero_copy_only=False).astype(np.str_)
    return array
