"""Training and test tables without positions: the same states and columns as an imported survey, held in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from zmill.catalog.files import atomic_write
from zmill.catalog.sizes import BATCH_BYTES, rows_of
from zmill.survey.counts import Counts
from zmill.survey.kinds import TypeChanged
from zmill.survey.readers import ReadError, open_table
from zmill.survey.rows import (
    Layout,
    array_columns,
    arrow,
    convert,
    input_columns,
    layout_of,
    numeric_columns,
    set_aside,
    typed_columns,
)
from zmill.survey_definition import Survey
from zmill.workflow.job import log

BATCH_ROWS = 131_072
"""Most rows that are converted at a time, of at most `BATCH_BYTES`."""


def read_tables(
    files: Sequence[Path | str], survey: Survey, rejected: Path | None = None, total: Counts | None = None
) -> pa.Table:
    """Read the files of `tables.train` or `tables.test`, one after another.

    Parameters
    ----------
    rejected : file of the bad rows, with `object_id` (string), `reason`, `file`, `row`; the log has their counts in any case.
    total : the counts of the rows are added to these.

    Returns
    -------
    The good rows in the order of the files, with the columns of an imported survey, without positions and with
    `redshift`.

    Raises
    ------
    ReadError
        Where a file cannot be read or most rows are unusable.
    """
    layout = layout_of(survey, _types(files, survey))
    while True:
        try:
            return _read(files, survey, layout, rejected, total)
        except TypeChanged as change:
            layout = layout.changed(change)


def _types(files: Sequence[Path | str], survey: Survey) -> dict[str, list[pa.DataType]]:
    tables = [open_table(path, survey.format, survey.group) for path in files]
    return {name: [table.type_of(name) for table in tables] for name in typed_columns(survey)}


def _read(
    files: Sequence[Path | str], survey: Survey, layout: Layout, rejected: Path | None, total: Counts | None
) -> pa.Table:
    wanted, numeric, arrays = list(input_columns(survey)), numeric_columns(survey), array_columns(survey)
    batch_rows = rows_of(BATCH_BYTES, layout.schema, BATCH_ROWS)
    good: list[pa.RecordBatch] = []
    bad: list[pa.Table] = []
    counts = Counts()
    first_row = 0
    for path in files:
        row = 0
        table = open_table(path, survey.format, survey.group)
        for batch in table.batches(wanted, batch_rows, numeric=numeric, arrays=arrays):
            converted = convert(batch, layout, first_row + row)
            good.append(arrow(converted.columns, layout.schema, converted.reason == 0))
            bad.append(set_aside(converted.columns, converted.reason, path, row))
            counts.add(converted.counted())
            row += batch.num_rows
        first_row += row
    names = ", ".join(map(str, files))
    if not counts.kept:
        raise ReadError(f"{names}: no row that can be used, of {first_row} there are")
    if refusal := counts.refusal():
        raise ReadError(f"{names}: {refusal}")
    for reason, count in sorted(counts.rejected.items()):
        log.warning("%d rows of %s set aside: %s", count, names, reason)
    for line in counts.lines():
        log.warning("%s: %s", names, line)
    if rejected is not None:
        with atomic_write(rejected) as temporary:
            pq.write_table(pa.concat_tables(bad), temporary)
    if total is not None:
        total.add(counts)
    return pa.Table.from_batches(good).combine_chunks()
