"""The split of the labelled rows, and what the cleaning learns from the training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from zmill.catalog import hats
from zmill.catalog.files import atomic_write, write_json
from zmill.clean import cuts
from zmill.config import Split
from zmill.inputs.base import InputKind, Learner
from zmill.inputs.registry import of_survey
from zmill.sample.redshifts import beyond_grid, warn_of_redshifts
from zmill.sample.sample import SPLITS, assign, by_partition, check_counts, key_column, take
from zmill.survey_definition import Cut, Survey
from zmill.workflow.job import log
from zmill.workflow.warning import Warnings


def split_matches(
    matches: Path,
    survey_catalog: Path,
    survey: Survey,
    split: Split,
    ambiguous: str,
    seed: int,
    out: Path,
    counts: Path,
) -> dict[str, Any]:
    """Write `split.parquet` and, last, `split.json`.

    Parameters
    ----------
    matches : `matches.parquet`.
    survey_catalog : the imported survey; magnitudes and the columns of the cuts are read for rows with matches.
    survey : survey definition; labels beyond its `redshift_grid` are not used, because no PDF can describe them.
    ambiguous : `crossmatch.ambiguous`, `exclude` or `keep`.
    """
    rows = pq.read_table(matches)
    mask, empty = _inputs_of(rows, survey_catalog, survey)
    side = assign(rows.column(key_column(split)), split, seed)
    set_aside = {"ambiguous": rows.column("ambiguous").to_numpy()} if ambiguous == "exclude" else {}
    redshift = rows.column("redshift").to_numpy()
    set_aside["beyond_grid"] = beyond_grid(redshift, survey.redshift_grid)
    set_aside["no_measurement"] = empty
    table, report = divide(rows, side, mask, set_aside, survey.cuts)
    report["steps"].insert(0, {"step": "survey", "rows": hats.rows(survey_catalog)})
    warnings = report["warnings"] = Warnings()
    warn_of_redshifts(redshift, rows.column("label_source").to_pylist(), survey.redshift_grid, {}, warnings)
    check_counts(report["splits"], split, rows.num_rows, report["excluded"])
    with atomic_write(out) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    write_json(counts, report)
    log_counts(report)
    return report


def divide(
    rows: pa.Table,
    side: NDArray[np.str_],
    mask: NDArray[np.int32],
    set_aside: dict[str, NDArray[np.bool_]],
    named_cuts: dict[str, Cut],
) -> tuple[pa.Table, dict[str, Any]]:
    """Labelled rows with the columns `cut`, `split` and `excluded`, and the numbers of rows removed and left.

    Parameters
    ----------
    side : (n,) the split that each row belongs to if it is used.
    mask : (n,) bit mask of the cuts that the row fails.
    set_aside : reason -> (n,) rows that are not used, whether or not they pass the cuts.

    Returns
    -------
    The table and `steps` (rows left after each step), `excluded` (rows by reason; a row counts for its first reason),
    `splits` (rows used) and `fractions`.
    """
    failed = cuts.first_failed(mask, named_cuts)
    reason = np.where(failed == "", "", "cut:" + failed)
    for name, those in reversed(set_aside.items()):
        reason[those] = name
    side = np.where(reason == "", side, "")

    left = rows.num_rows
    steps = [{"step": "labelled", "rows": left}]
    excluded = {}
    for name in (*set_aside, *(f"cut:{cut}" for cut in named_cuts)):
        excluded[name] = int(np.count_nonzero(reason == name))
        left -= excluded[name]
        steps.append({"step": name, "rows": left})
    splits = {name: int(np.count_nonzero(side == name)) for name in SPLITS}
    fractions = {name: round(count / max(left, 1), 6) for name, count in splits.items()}
    table = (
        rows.append_column("cut", pa.array(mask, pa.int32()))
        .append_column("split", pa.array(side.tolist(), pa.string()))
        .append_column("excluded", pa.array(reason.tolist(), pa.string()))
    )
    return table, {"steps": steps, "excluded": excluded, "splits": splits, "fractions": fractions}


def fit_imputation(split: Path, survey_catalog: Path, inputs: Sequence[InputKind], out: Path) -> dict[str, Any]:
    """Write `imputation.json`: what the input kinds learn from the training rows to clean all rows."""
    rows = pq.read_table(split, columns=["norder", "npix", "row", "object_id", "split"])
    rows = rows.filter(pc.equal(rows.column("split"), "train"))
    learners = learners_of(inputs)
    names = list(dict.fromkeys(name for learner in learners.values() for name in learner.names))
    for partition, positions in by_partition(rows):
        found = take(survey_catalog, partition, rows.take(pa.array(positions)), names)
        for learner in learners.values():
            learner.add(found)
    return save_imputation(learners, rows.num_rows, out)


def learners_of(inputs: Sequence[InputKind]) -> dict[str, Learner]:
    """Name of the kind -> its learner, for kinds that have one."""
    return {kind.name: learner for kind in inputs if (learner := kind.learner()) is not None}


def save_imputation(learners: Mapping[str, Learner], rows: int, out: Path) -> dict[str, Any]:
    """Write `imputation.json`, log its content, and return what was learned by kind."""
    learned = {name: learner.result() for name, learner in learners.items()}
    write_json(out, {"learned": learned, "training_rows": rows})
    for learner in learners.values():
        learner.log()
    return learned


def log_counts(report: dict[str, Any]) -> None:
    """Log the numbers of rows after each step and in each split."""
    for step in report["steps"]:
        removed = report["excluded"].get(step["step"])
        note = "" if removed is None else f" left, {removed:,} removed"
        log.info("%-24s %12s rows%s", step["step"], f"{step['rows']:,}", note)
    for name, count in report["splits"].items():
        log.info("  %-22s %12s rows, %.1f %%", name, f"{count:,}", 100 * report["fractions"][name])


def without_input(rows: pa.Table, survey: Survey) -> NDArray[np.bool_]:
    """(n,) whether the row has no measurement of any input kind."""
    return np.logical_and.reduce([kind.empty(rows, survey) for kind in of_survey(survey)])


def _inputs_of(rows: pa.Table, survey_catalog: Path, survey: Survey) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """(n,) bit mask of the cuts that the survey rows of the labels fail, and (n,) `without_input`."""
    mask, empty = np.zeros(rows.num_rows, np.int32), np.zeros(rows.num_rows, bool)
    of_kinds = [name for kind in of_survey(survey) for name in kind.empty_columns(survey)]
    names = list(dict.fromkeys([*of_kinds, *cuts.columns(survey.cuts)]))
    for partition, positions in by_partition(rows):
        part = take(survey_catalog, partition, rows.take(pa.array(positions)), names)
        mask[positions] = cuts.failed(part, survey.cuts)
        empty[positions] = without_input(part, survey)
    return mask, empty
