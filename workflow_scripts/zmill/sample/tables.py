"""The sample of a survey without positions, made from its training and test tables with the same cuts and imputation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from zmill.catalog.files import atomic_write, write_json
from zmill.clean import cuts
from zmill.clean.partition import Recipe, clean_rows
from zmill.config import Labels, Split
from zmill.inputs.base import InputKind
from zmill.inputs.batch import row_hashes
from zmill.inputs.registry import of_survey
from zmill.sample.constant import warn_of_constants
from zmill.sample.redshifts import unusable, warn_of_redshifts
from zmill.sample.sample import assign, check_counts, write
from zmill.sample.split import divide, learners_of, log_counts, save_imputation, without_input
from zmill.survey.counts import Counts
from zmill.survey.plausible import look
from zmill.survey.tables import read_tables
from zmill.survey_definition import Survey
from zmill.workflow.warning import Warnings

SAME_REDSHIFT = 0.005
"""Largest difference in redshift of two rows of the same object, in units of 1 + z."""
TABLE_LABELS: dict[str, tuple[pa.DataType, Any]] = {
    "redshift": (pa.float64(), None),
    "redshift_err": (pa.float32(), np.nan),
    "quality": (pa.int8(), 4),
    "label_source": (pa.string(), "table"),
    "separation_arcsec": (pa.float32(), np.nan),
}
"""Label columns of a sample, and their default values where the table lacks them; redshifts of a training table count as secure."""


def sample_tables(
    train: Sequence[Path],
    test: Sequence[Path],
    survey: Survey,
    split: Split,
    impute: str,
    seed: int,
    out: Path,
    labels: Labels | None = None,
) -> dict[str, Any]:
    """Write `import.json`, `imputation.json`, `split.json` and the sample of a survey that is given as tables.

    Training rows are assigned to train, valid and calib row by row in their proportion; `split.test` is not used, because
    the test rows are those of the test tables. Redshifts are checked like those of labels on the sky, and training rows that
    are also test rows are excluded. Rows excluded for either reason are counted in `split.json` and listed in
    `rejected/labels.parquet`.

    Parameters
    ----------
    train, test : files.
    out : the survey's folder of results; the tables go to its `sample/`.
    labels : its `min_redshift` is used.
    """
    by_row = split.model_copy(update={"by": "row"})
    counts = Counts()
    given = read_tables(train, survey, out / "rejected" / "train.parquet", counts)
    tested = read_tables(test, survey, out / "rejected" / "test.parquet", counts)
    warnings = Warnings()
    for warning in look([*train, *test], survey).warnings:
        warnings.add(warning)
    write_json(out / "import.json", {**counts.json(), "warnings": warnings})
    side = np.concatenate(
        [assign(given.column("object_id"), by_row, seed, tested=False), np.full(tested.num_rows, "test")]
    )
    rows = with_labels(pa.concat_tables([given, tested], promote_options="none"))
    redshift = rows.column("redshift").to_numpy()
    without = unusable(redshift, (labels or Labels()).min_redshift, survey.redshift_grid)
    copies = repeated(given, tested, survey)
    without |= copies
    label_reasons = list(without)
    without["no_measurement"] = without_input(rows, survey)
    divided, report = divide(rows, side, cuts.failed(rows, survey.cuts), without, survey.cuts)
    excluded = divided.column("excluded").to_numpy()
    _write_set_aside(
        rows, np.isin(excluded, label_reasons), excluded, given.num_rows, out / "rejected" / "labels.parquet"
    )
    warnings = report["warnings"] = Warnings()
    lost = {reason: report["excluded"][reason] for reason in label_reasons if reason not in copies}
    warn_of_redshifts(redshift, rows.column("label_source").to_pylist(), survey.redshift_grid, lost, warnings)
    _warn_of_copies(report["excluded"], given.num_rows, tested.num_rows, warnings)
    if survey.columns.object_id is not None:
        _warn_of_identifiers(given, tested, copies["in_test_table"][: given.num_rows], warnings)
    check_counts(report["splits"], by_row, rows.num_rows, report["excluded"])

    training = rows.filter(pc.equal(divided.column("split"), "train"))
    inputs = of_survey(survey)
    learners = learners_of(inputs)
    for learner in learners.values():
        learner.add(training)
    learned = save_imputation(learners, training.num_rows, out / "imputation.json")
    write_json(out / "split.json", report)
    log_counts(report)

    used = pc.not_equal(divided.column("split"), "")
    recipe = Recipe(tuple(inputs), survey.cuts, learned if impute != "none" else {})
    given_labels = rows.select(list(TABLE_LABELS)).filter(used)
    table, _ = clean_rows(rows.drop_columns(list(TABLE_LABELS)).filter(used), recipe)
    for name in TABLE_LABELS:
        table = table.append_column(given_labels.schema.field(name), given_labels.column(name))
    side = divided.column("split").filter(used)
    warnings = Warnings()
    warn_of_constants(inputs, table.filter(pc.equal(side, "train")), warnings)
    return write([(table, side)], report, out / "sample", warnings=warnings)


def repeated(given: pa.Table, tested: pa.Table, survey: Survey) -> dict[str, NDArray[np.bool_]]:
    """Reason -> (n,) rows, of training and test tables joined, that repeat an object of another row.

    Two rows are of the same object if they have the same `columns.object_id` and redshift (to 0.005 (1 + z)), or if all
    their measurements (`Batch.identities`) and redshifts are equal. `in_test_table` marks training rows of an object that is also in a test
    table, `duplicate` later rows with the values of an earlier row of the same table.
    """
    inputs = of_survey(survey)
    mine, theirs = _values(given, inputs), _values(tested, inputs)
    in_test = np.isin(mine, theirs) & (mine != b"")
    if survey.columns.object_id is not None:
        test_z = dict(zip(tested["object_id"].to_pylist(), tested["redshift"].to_pylist(), strict=True))
        ids, z = given["object_id"].to_pylist(), given["redshift"].to_pylist()
        in_test |= np.array(
            [one in test_z and _same_redshift(z[row], test_z[one]) for row, one in enumerate(ids)], bool
        )
    later = [_later(mine), _later(theirs)]
    return {
        "in_test_table": np.concatenate([in_test, np.zeros(tested.num_rows, bool)]),
        "duplicate": np.concatenate(later),
    }


def _values(rows: pa.Table, inputs: Sequence[InputKind]) -> NDArray[np.bytes_]:
    """(n,) hash of the measurements and the redshift of each row; empty where too little is measured to tell rows apart."""
    of_kinds = [kind.read(rows).identities() for kind in inputs]
    known = np.logical_or.reduce([found != b"" for found in of_kinds])
    redshift = row_hashes(rows["redshift"].to_numpy()[:, None])
    joined = np.array([b"".join(parts) for parts in zip(*of_kinds, redshift, strict=True)])
    return np.where(known, joined, b"")


def _later(values: NDArray[np.bytes_]) -> NDArray[np.bool_]:
    """(n,) whether an earlier row has the same value; False for empty values."""
    later = np.ones(len(values), bool)
    later[np.unique(values, return_index=True)[1]] = False
    return later & (values != b"")


def _same_redshift(one: float | None, other: float | None) -> bool:
    """Whether two redshifts agree within `SAME_REDSHIFT`; an unknown redshift agrees with any."""
    if one is None or other is None or not np.isfinite([one, other]).all():
        return True
    return abs(one - other) <= SAME_REDSHIFT * (1 + abs(other))


def _write_set_aside(
    rows: pa.Table, those: NDArray[np.bool_], reason: NDArray[np.str_], training: int, path: Path
) -> None:
    table = pa.table(
        {
            "object_id": rows["object_id"].cast(pa.string()),
            "table": np.where(np.arange(rows.num_rows) < training, "train", "test"),
            "redshift": rows["redshift"],
            "reason": pa.array(reason.tolist(), pa.string()),
        }
    )
    with atomic_write(path) as temporary:
        pq.write_table(table.filter(pa.array(those)), temporary)


def _warn_of_copies(excluded: dict[str, int], training: int, tested: int, warnings: Warnings) -> None:
    if leak := excluded["in_test_table"]:
        warnings.add(
            f"{leak:,} of {training:,} rows of the training tables are of objects that the test tables ({tested:,} rows) have, too: "
            "they are left out of training, calibration and the choice of the model (in_test_table in rejected/labels.parquet)"
        )
    if again := excluded["duplicate"]:
        warnings.add(
            f"{again:,} rows of the training and test tables have all values of an earlier row: they are left out (duplicate in "
            "rejected/labels.parquet)"
        )


def _warn_of_identifiers(given: pa.Table, tested: pa.Table, same: NDArray[np.bool_], warnings: Warnings) -> None:
    """Warn of identifiers that training and test rows share though their redshifts differ.

    same : (n,) training rows of an object that is also in a test table.
    """
    shared = pc.is_in(given["object_id"], value_set=tested["object_id"].combine_chunks()).to_numpy() & ~same
    if many := int(shared.sum()):
        warnings.add(
            f"{many:,} of {given.num_rows:,} rows of the training tables have the identifier of a test row and another redshift: they "
            "are taken for other objects and kept; if they are not, leave them out of one of the files"
        )


def with_labels(rows: pa.Table) -> pa.Table:
    """Rows with all label columns, of the types of a sample, after those of the input kinds."""
    table = rows.select([name for name in rows.column_names if name not in TABLE_LABELS])
    for name, (kind, value) in TABLE_LABELS.items():
        column = rows.column(name).cast(kind) if name in rows.column_names else pa.array([value] * rows.num_rows, kind)
        table = table.append_column(pa.field(name, kind), column)
    return table
