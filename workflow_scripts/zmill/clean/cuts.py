"""Cuts: conditions that a row must meet to train a model, as a bit mask of the failed ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zmill.config import ConfigError, nearest
from zmill.inputs.registry import of_survey
from zmill.survey_definition import Cut, Survey

MaskArray = NDArray[np.int32]
MAX_CUTS = 31
"""Bits of an int32 without its sign."""


def check_cuts(survey: Survey, name: str, types: Mapping[str, pa.DataType] | None = None) -> None:
    """Refuse invalid cuts before any job starts.

    Parameters
    ----------
    name : the survey's name, for the message.
    types : types of `columns.extra` in the survey's files, where the files exist.

    Raises
    ------
    ConfigError
        Too many cuts, a column that the imported survey will not have, a cut by number on text or the other way round.
    """
    where = f"surveys/{name}.yaml: cuts"
    if len(survey.cuts) > MAX_CUTS:
        raise ConfigError(
            f"{where}: found {len(survey.cuts)} cuts; the mask has room for {MAX_CUTS}: join some of them"
        )
    known = [name for kind in of_survey(survey) for name in kind.cut_columns(survey)] + survey.columns.extra
    if survey.columns.ebv or survey.extinction.map:
        known.append("ebv")
    for cut_name, cut in survey.cuts.items():
        if cut.column not in known:
            raise ConfigError(
                f"{where}.{cut_name}: there is no column {cut.column!r}{nearest(cut.column, known)}; "
                f"a cut takes one of {', '.join(known)}; further columns of the files go under columns.extra"
            )
        kind = (types or {}).get(cut.column)
        if kind is not None:
            failed(pa.table({cut.column: pa.array([], kind)}), {cut_name: cut})


def columns(cuts: dict[str, Cut]) -> list[str]:
    """The columns that `failed` reads, each once."""
    return list(dict.fromkeys(cut.column for cut in cuts.values()))


def failed(rows: pa.Table | pa.RecordBatch, cuts: dict[str, Cut]) -> MaskArray:
    """(n,) bit mask of the cuts that each row fails, in the order of `cuts`.

    A missing value fails every cut on its column. Magnitudes are the measured ones: call this before imputation.

    Raises
    ------
    ConfigError
        Where a cut by number is on a column of text or the other way round.
    """
    mask = np.zeros(rows.num_rows, np.int32)
    for bit, (name, cut) in enumerate(cuts.items()):
        column = rows.column(cut.column)
        passes = _text_passes if _is_text(column.type) else _number_passes
        mask |= (~passes(column, name, cut)).astype(np.int32) << np.int32(bit)
    return mask


def first_failed(mask: MaskArray, cuts: dict[str, Cut]) -> NDArray[np.object_]:
    """(n,) name of the first cut that each row fails, "" where it fails none."""
    names = np.full(len(mask), "", object)
    for bit, name in reversed(list(enumerate(cuts))):
        names[(mask >> bit) & 1 == 1] = name
    return names


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _number_passes(column: pa.Array | pa.ChunkedArray, name: str, cut: Cut) -> NDArray[np.bool_]:
    values = column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    passes = ~np.isnan(values)
    rounded = values.dtype.type if values.dtype.kind == "f" else float
    if cut.min is not None:
        passes &= values >= rounded(cut.min)
    if cut.max is not None:
        passes &= values <= rounded(cut.max)
    if cut.equals is not None:
        if any(isinstance(value, str) for value in cut.equals):
            raise ConfigError(
                f"cuts.{name}: column {cut.column!r} holds numbers, equals asks for {cut.equals}: give numbers there"
            )
        # float32 columns: 0.1 of the configuration must find the 0.1 of the column
        passes &= np.isin(values, np.asarray([rounded(value) for value in cut.equals]))
    return passes


def _text_passes(column: pa.Array | pa.ChunkedArray, name: str, cut: Cut) -> NDArray[np.bool_]:
    if cut.equals is None or any(not isinstance(value, str) for value in cut.equals):
        raise ConfigError(
            f"cuts.{name}: column {cut.column!r} holds text; give `equals` with the texts kept, in quotes, and no min or max"
        )
    within = pc.is_in(column, value_set=pa.array(cut.equals, column.type))
    return np.asarray(
        within.to_numpy(zero_copy_only=False) if isinstance(within, pa.Array) else within.to_numpy(), bool
    )
