"""Conversion of a source's columns to entries, judged by flags and values."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.labels.base import entry_table
from zmill.labels.quality import Flags, Judged, Texts, numbers, texts
from zmill.labels.redshifts import without_redshift

TRUE = {"1", "T", "TRUE", "Y", "YES"}


class Judge(Protocol):
    """Gives the quality of flags and finds unknown flags: a `Scheme`, or the settings of a source."""

    def judge(self, flags: Flags) -> Judged:
        """Quality and reason of rows with these flags."""

    def unknown(self, flags: Flags) -> Texts:
        """The flag or class that is not known, empty where all are."""


def rows(columns: dict[str, NDArray[Any]], judge: Judge, first_row: int = 0) -> pa.Table:
    """A table of `ENTRY`, a row for each row of the columns.

    Parameters
    ----------
    columns : `ra` and `dec` in degrees, `redshift`, and where there are `redshift_err`, `flag`, `kind`, `id`, `primary`,
        `velocity`, `magnitude`; (n,) each.
    judge : gives the quality of the flags.
    first_row : number of the first row, for rows without an identifier.
    """
    count = len(columns["ra"])
    redshift = columns["redshift"]
    error = columns.get("redshift_err", np.full(count, np.nan))
    flags = Flags(
        count,
        flag=texts(columns["flag"]) if "flag" in columns else None,
        kind=texts(columns["kind"]) if "kind" in columns else None,
        redshift_err=error if "redshift_err" in columns else None,
        primary=_true(columns["primary"]) if "primary" in columns else None,
    )
    quality, reason = judge.judge(flags)
    missing, out_of_range = without_redshift(redshift)
    moving = missing & np.isfinite(columns["velocity"]) if "velocity" in columns else np.zeros(count, bool)
    of_number = np.select(
        [moving, missing, out_of_range], ["velocity_only", "no_redshift", "redshift_out_of_range"], ""
    )
    numbered = np.arange(first_row, first_row + count).astype(np.str_)
    entries: dict[str, Any] = {
        "specz_id": texts(columns["id"]) if "id" in columns else numbered,
        "ra": columns["ra"],
        "dec": columns["dec"],
        "redshift": redshift,
        "redshift_err": np.where(error > 0, error, np.nan).astype(np.float32),
        "quality": quality,
        "reason": np.where(reason != "", reason, of_number),
        "unknown": judge.unknown(flags),
    }
    if flags.flag is not None:
        entries["source_flag"] = flags.flag
    if "magnitude" in columns:
        entries["magnitude"] = columns["magnitude"].astype(np.float32)
    return entry_table(entries)


def _true(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind == "b":
        return values.astype(bool)
    text = texts(values)
    return np.isin(np.char.upper(np.char.strip(text)), list(TRUE)) | (np.nan_to_num(numbers(text)) > 0)
