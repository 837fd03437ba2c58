"""Plausibility check of the first rows of a survey's files: positions, and what the input kinds check in their columns.

The import itself counts certain faults; this check warns of probable ones before the import starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.catalog.sizes import rows_of
from zmill.inputs.registry import of_survey
from zmill.survey.counts import Counts
from zmill.survey.readers import ReadError, open_table
from zmill.survey.rows import (
    Converted,
    Layout,
    array_columns,
    convert,
    input_columns,
    layout_of,
    numeric_columns,
    positions,
)
from zmill.survey_definition import Extinction, Survey

LOOK_FILES, LOOK_ROWS, LOOK_BYTES = 20, 200_000, 256 << 20
"""Number of files, spread over all of them, that are checked, and the total number and size in bytes of their first rows."""
BATCH_ROWS = 50_000
"""Most rows that are read at a time."""
ENOUGH = 100
"""Least number of rows for a warning."""

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Look:
    """The findings in the first rows.

    warnings : one sentence each, with counts and the setting to write.
    refusal : the reason to refuse the files, where all rows were checked; None otherwise.
    """

    warnings: list[str]
    refusal: str | None


def look(files: Sequence[Path], survey: Survey) -> Look:
    """Check the first rows of the existing files.

    Raises
    ------
    ReadError
        Where a file cannot be read.
    """
    columns = survey.columns.model_copy(update={"object_id": None, "extra": []})
    # Only the import reads E(B-V) from a map.
    extinction = Extinction() if survey.extinction.map else survey.extinction
    has_positions = bool(survey.files)
    # Positions are checked here, because pixels are not needed and importing their library takes seconds.
    survey = survey.model_copy(update={"columns": columns, "extinction": extinction, "files": [], "tables": None})
    there = [path for path in map(Path, files) if path.exists()]
    step = max(1, -(-len(there) // LOOK_FILES))
    chosen = there[::step]
    counts, everything = Counts(), len(chosen) == len(files)
    inspections = [found for kind in of_survey(survey) if (found := kind.inspection(survey)) is not None]
    extent = _Extent(survey.columns.angle_unit)
    layout = layout_of(survey, {})
    rows = rows_of(LOOK_BYTES, layout.schema, LOOK_ROWS)
    quiet = tuple(fault for kind in of_survey(survey) for fault in kind.quiet_faults)
    for path in chosen:
        most = max(1, rows // len(chosen))
        for batch in _batches(path, survey, most):
            if most <= 0:
                everything = False
                break
            batch = batch.slice(0, most)
            most -= batch.num_rows
            converted = _converted(batch, layout, path)
            if has_positions:
                ra, dec, astray = positions(batch, survey)
                np.copyto(converted.reason, astray, where=astray > 0)
                extent.add(ra[astray == 0], dec[astray == 0])
            counts.add(converted.counted())
            for inspection in inspections:
                inspection.add(batch, converted.columns, converted.faults, converted.reason == 0)
        everything &= most > 0
    of = f"of {'' if everything else 'the first '}{counts.rows} rows"
    warnings = [f"{reason}: {n} {of} are set aside" for reason, n in sorted(counts.rejected.items())]
    warnings += [line for line in counts.lines() if not line.startswith(quiet)]
    warnings += [line for inspection in inspections for line in inspection.warnings(of)]
    warnings += extent.warnings()
    return Look(warnings, counts.refusal() if everything else None)


def _batches(path: Path, survey: Survey, rows: int) -> Iterator[pa.RecordBatch]:
    columns = list(input_columns(survey))
    table = open_table(path, survey.format, survey.group)
    yield from table.batches(
        columns, min(rows, BATCH_ROWS), numeric=numeric_columns(survey), arrays=array_columns(survey)
    )


def _converted(batch: pa.RecordBatch, layout: Layout, path: Path) -> Converted:
    """`convert`, with the file in its errors."""
    try:
        return convert(batch, layout, 0)
    except ReadError as error:
        raise ReadError(f"{path}: {error}") from None


class _Extent:
    """Largest coordinates of the checked rows."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.largest: list[tuple[float, float]] = []
        self.rows = 0

    def add(self, ra: Floats, dec: Floats) -> None:
        """Add positions in degrees."""
        if len(ra):
            self.largest.append((float(np.abs(ra).max()), float(np.abs(dec).max())))
            self.rows += len(ra)

    def warnings(self) -> list[str]:
        """A warning where all positions may be in radians."""
        if self.rows < ENOUGH or self.unit != "degree":
            return []
        ra, dec = np.max(self.largest, axis=0)
        if ra <= 2 * np.pi and dec <= np.pi / 2:
            return [
                f"all right ascensions are at most {ra:.4f} and all declinations at most {dec:.4f} degrees: if these are "
                "radians, write columns: {angle_unit: radian}"
            ]
        return []
