"""Spectroscopic redshifts from files, in any format that the survey's readers know."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from zmill.config import ConfigError
from zmill.labels.base import LabelsError, Request
from zmill.labels.judging import Judging
from zmill.labels.rows import rows
from zmill.sample import HIGHEST_REDSHIFT
from zmill.sections import Place, Text, shown
from zmill.survey.check import column_faults, resolve
from zmill.survey.readers import FORMATS, open_table

LIGHT_KM_S = 299_792.458
BATCH_ROWS = 50_000
"""Rows read at a time: of SDSS, whose rows are 1.3 kB wide, 65 MB."""


class Settings(Judging):
    """An entry of `labels:` with `source: file`."""

    files: Annotated[list[Place], Field(min_length=1)]
    """Paths or glob patterns, below `data_dir` unless absolute."""
    format: Text | None = None
    """Read from the file's ending when left out."""
    group: Text | None = None
    """The group of an HDF5 file or the extension of a FITS file."""
    angle_unit: Literal["degree", "hour", "radian"] = "degree"
    """Unit of ra and dec (`hour` holds for ra alone)."""
    redshift_unit: Literal["z", "km/s"] = "z"
    """`km/s`: the column holds cz."""

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
            Where a file is not a table, or a column is missing.
        """
        named = [(f"columns.{'class' if key == 'kind' else key}", column) for key, column in self.named().items()]
        faults = [fault for path in files for fault in column_faults(path, named, self.format, self.group)]
        if faults:
            raise ConfigError("\n".join(f"labels: {self.name}: {fault}" for fault in faults))


NUMERIC = ("ra", "dec", "redshift", "redshift_err", "velocity", "magnitude")


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
    scale = LIGHT_KM_S if settings.redshift_unit == "km/s" else 1.0
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


def _array(column: pa.Array) -> NDArray[Any]:
    if pa.types.is_floating(column.type) and column.null_count:
        column = column.fill_null(float("nan"))
    array: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return array
