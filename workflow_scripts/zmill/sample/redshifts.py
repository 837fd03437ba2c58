"""Checks of the redshifts of labelled rows: which can be used, and warnings of suspect ones."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from zmill.labels.redshifts import without_redshift
from zmill.survey_definition import RedshiftGrid
from zmill.workflow.warning import Warnings

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FEW = 0.001
"""Fraction of the labelled rows up to which redshifts beyond the grid are counted without a warning."""
SHARE, FEWEST = 0.05, 20
"""Fraction and number of labelled rows with the same redshift from which that value is suspected to mark a missing redshift."""


def beyond_grid(redshift: Floats, grid: RedshiftGrid) -> Bools:
    """(n,) whether the redshift is outside the grid, where no density can describe it; False for NaN."""
    return (redshift < grid.min) | (redshift > grid.max)


def unusable(redshift: Floats, min_redshift: float, grid: RedshiftGrid) -> dict[str, Bools]:
    """Reason -> (n,) whether the redshift cannot be used: missing, out of range, of a star or a failure, or beyond the grid.

    The reasons are the same as for the labels of surveys with positions (`zmill.labels`).
    """
    missing, out_of_range = without_redshift(redshift)
    return {
        "no_redshift": missing,
        "redshift_out_of_range": out_of_range,
        "low_redshift": ~missing & (redshift <= min_redshift),
        "beyond_grid": ~missing & ~out_of_range & beyond_grid(redshift, grid),
    }


def warn_of_redshifts(
    redshift: Floats, source: list[str], grid: RedshiftGrid, lost: dict[str, int], warnings: Warnings
) -> None:
    """Warn of labels that are not used because of their redshift, and of a redshift that very many rows share.

    Parameters
    ----------
    redshift : (n,) redshifts of all labelled rows; NaN where missing.
    source : (n,) `label_source` of each row.
    lost : number of rows that are not used, by the reasons of `unusable`.
    """
    beyond = beyond_grid(redshift, grid) & ~np.logical_or.reduce(without_redshift(redshift))
    if beyond.sum() > FEW * len(redshift):
        of = Counter(np.array(source)[beyond].tolist())
        named = ", ".join(f"{name} {number:,}" for name, number in of.most_common())
        warnings.add(
            f"{_share(int(beyond.sum()), len(redshift))} have a redshift beyond redshift_grid ({grid.min:g} to {grid.max:g}), "
            f"from {redshift[beyond].min():g} to {redshift[beyond].max():g} ({named}): they take no part in training, calibration "
            "or any metric, and the PDFs cannot reach them. Widen redshift_grid if these redshifts are real"
        )
    others = {reason: number for reason, number in lost.items() if number and reason != "beyond_grid"}
    if others:
        named = ", ".join(f"{reason} {number:,}" for reason, number in others.items())
        warnings.add(f"{_share(sum(others.values()), len(redshift))} have no redshift that can be used: {named}")
    value, number = np.unique(redshift[(redshift >= grid.min) & (redshift <= grid.max)], return_counts=True)
    often = number >= max(FEWEST, SHARE * len(redshift))
    for one, times in zip(value[often].tolist(), number[often].tolist(), strict=True):
        warnings.add(
            f"{_share(times, len(redshift))} have one and the same redshift, {one:g}: if it marks a missing redshift, set it to "
            "null in the file, or raise labels.min_redshift or lower redshift_grid.max so that it is left out"
        )


def _share(number: int, total: int) -> str:
    return f"{number:,} of {total:,} labelled rows ({100 * number / max(total, 1):.3g} %)"
