"""The split of the labelled rows, and the mean colors of the training rows."""

from __future__ import annotations

from collections.abc import Sequence
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
from zmill.inputs.photometry.impute import ColorSums, MeanColors
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
    mask, empty = _photometry_of(rows, survey_catalog, survey)
    side = assign(rows.column(key_column(split)), split, seed)
    set_aside = {"ambiguous": rows.column("ambiguous").to_numpy()} if ambiguous == "exclude" else {}
    redshift = rows.column("redshift").to_numpy()
    set_aside["beyond_grid"] = beyond_grid(redshift, survey.redshift_grid)
    set_aside["no_photometry"] = empty
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


def fit_colors(split: Path, survey_catalog: Path, bands: tuple[str, ...], out: Path) -> MeanColors:
    """Write `imputation.json`: the mean colors of the training rows, computed from measured magnitudes alone."""
    rows = pq.read_table(split, columns=["norder", "npix", "row", "object_id", "split"])
    rows = rows.filter(pc.equal(rows.column("split"), "train"))
    names = [f"mag_{band}" for band in bands]
    sums = ColorSums(bands)
    for partition, positions in by_partition(rows):
        photometry = take(survey_catalog, partition, rows.take(pa.array(positions)), names)
        sums.add([photometry.column(name).to_numpy() for name in names])
    return save_colors(sums.colors(), rows.num_rows, out)


def save_colors(colors: MeanColors, rows: int, out: Path) -> MeanColors:
    """Write `imputation.json` and log its content."""
    write_json(out, {**colors.to_json(), "training_rows": rows})
    for name, color, pairs in zip(colors.names, colors.color, colors.pairs, strict=True):
        if pairs:
            log.info("mean color %s: %.4f mag from %s rows", name, color, f"{pairs:,}")
        else:
            log.warning("mean color %s: the two bands are never measured together; nothing is filled across them", name)
    return colors


def log_counts(report: dict[str, Any]) -> None:
    """Log the numbers of rows after each step and in each split."""
    for step in report["steps"]:
        removed = report["excluded"].get(step["step"])
        note = "" if removed is None else f" left, {removed:,} removed"
        log.info("%-24s %12s rows%s", step["step"], f"{step['rows']:,}", note)
    for name, count in report["splits"].items():
        log.info("  %-22s %12s rows, %.1f %%", name, f"{count:,}", 100 * report["fractions"][name])


def without_photometry(rows: pa.Table, bands: Sequence[str]) -> NDArray[np.bool_]:
    """(n,) whether the row has no measured magnitude in any band."""
    return np.logical_and.reduce([np.isnan(rows.column(f"mag_{band}").to_numpy()) for band in bands])


def _photometry_of(rows: pa.Table, survey_catalog: Path, survey: Survey) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """(n,) bit mask of the cuts that the survey rows of the labels fail, and (n,) `without_photometry`."""
    mask, empty = np.zeros(rows.num_rows, np.int32), np.zeros(rows.num_rows, bool)
    names = list(dict.fromkeys([*(f"mag_{band}" for band in survey.bands), *cuts.columns(survey.cuts)]))
    for partition, positions in by_partition(rows):
        part = take(survey_catalog, partition, rows.take(pa.array(positions)), names)
        mask[positions] = cuts.failed(part, survey.cuts)
        empty[positions] = without_photometry(part, survey.bands)
    return mask, empty
