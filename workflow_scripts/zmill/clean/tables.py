"""The sample of a survey without positions: its training and test tables, through the same cuts and imputation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zmill.catalog.files import write_json
from zmill.clean import cuts
from zmill.clean.impute import ColorSums
from zmill.clean.partition import Recipe, clean_rows
from zmill.clean.split import divide, save_colors, tell, without_photometry
from zmill.config import Split, Survey
from zmill.sample import assign, check_counts, write
from zmill.survey.tables import read_tables

TABLE_LABELS: dict[str, tuple[pa.DataType, Any]] = {
    "redshift": (pa.float64(), None),
    "redshift_err": (pa.float32(), np.nan),
    "quality": (pa.int8(), 4),
    "label_source": (pa.string(), "table"),
    "separation_arcsec": (pa.float32(), np.nan),
}
"""Label columns of a sample and what they hold where the table does not say: who gives a training table vouches for it."""


def sample_tables(
    train: Sequence[Path], test: Sequence[Path], survey: Survey, split: Split, impute: str, seed: int, out: Path
) -> dict[str, Any]:
    """Write `imputation.json`, `split.json` and the sample of a survey that is given as tables.

    Training rows are shared out to train, valid and calib row by row in their proportion (`split.test` has no part in
    it); test rows are the test tables'. Rows without a redshift are set aside.

    Parameters
    ----------
    train, test : files.
    out : the survey's folder of results; the tables go to its `sample/`.
    """
    by_row = split.model_copy(update={"by": "row"})
    given = read_tables(train, survey, out / "rejected" / "train.parquet")
    tested = read_tables(test, survey, out / "rejected" / "test.parquet")
    side = np.concatenate(
        [assign(given.column("object_id"), by_row, seed, tested=False), np.full(tested.num_rows, "test")]
    )
    rows = with_labels(pa.concat_tables([given, tested], promote_options="none"))
    without = {
        "no_redshift": ~np.isfinite(rows.column("redshift").to_numpy()),
        "no_photometry": without_photometry(rows, survey.bands),
    }
    divided, report = divide(rows, side, cuts.failed(rows, survey.cuts), without, survey.cuts)
    check_counts(report["splits"], by_row, rows.num_rows, report["excluded"])

    names = [f"mag_{band}" for band in survey.bands]
    training = rows.filter(pc.equal(divided.column("split"), "train"))
    sums = ColorSums(survey.bands)
    sums.add([training.column(name).to_numpy() for name in names])
    colors = save_colors(sums.colors(), training.num_rows, out / "imputation.json")
    write_json(out / "split.json", report)
    tell(report)

    used = pc.not_equal(divided.column("split"), "")
    recipe = Recipe(tuple(survey.bands), survey.cuts, colors if impute == "mean_color" else None)
    labels = rows.select(list(TABLE_LABELS)).filter(used)
    table, _ = clean_rows(rows.drop_columns(list(TABLE_LABELS)).filter(used), recipe)
    for name in TABLE_LABELS:
        table = table.append_column(labels.schema.field(name), labels.column(name))
    return write(table, divided.column("split").filter(used), report, out / "sample")


def with_labels(rows: pa.Table) -> pa.Table:
    """Rows whose label columns are all there, of the types of a sample, behind the photometry."""
    photometry = [name for name in rows.column_names if name not in TABLE_LABELS]
    table = rows.select(photometry)
    for name, (kind, value) in TABLE_LABELS.items():
        column = rows.column(name).cast(kind) if name in rows.column_names else pa.array([value] * rows.num_rows, kind)
        table = table.append_column(pa.field(name, kind), column)
    return table
