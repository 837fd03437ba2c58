"""Which redshifts are right: a section of the report on the calibrated odds."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmill.report import figures
from zmill.report.blocks import Cell, Note, Section, Table, count, number, percent, picture, text

SOLD = 0.99
"""The purity that the text of the purity curve names."""


def reliability_section(found: dict[str, Any]) -> Section:
    """Purity against share of rows, and the calibration of the odds.

    found : `reliability` of the test rows in the chosen model's `metrics.json`.
    """
    width = found["width"]
    curve = {name: np.array(values, np.float64) for name, values in found["curve"].items()}
    bins = {name: np.array([one[name] for one in found["bins"]], np.float64) for name in ("odds", "right", "error")}
    sold = next(cut["measured"] for cut in found["cuts"] if cut["purity"] == SOLD)
    reached = f"{percent(sold['share']).text} of the rows" if sold else "no rows"
    section = Section("reliability", "Which redshifts are right?", "Reliability")
    section.blocks += [
        Note(
            f"A redshift is right where z_mode is within {width:g} (1 + z) of the true one: {percent(found['right']).text} of the test rows. "
            f"The column odds is the probability of that; its mean is {percent(found['odds']).text}. Rows with high odds are a "
            "selection with a stated purity, which is their mean odds."
        ),
        picture(
            "purity",
            f"Purity of the test rows with the highest odds, by their share of all rows. Dotted: {percent(SOLD).text}.",
            f"Purity against share of rows; a purity of {percent(SOLD).text} is measured for {reached}.",
            lambda: figures.purity_curve(curve["share"], curve["purity"], curve["stated"]),
        ),
        picture(
            "odds",
            "Fraction of right redshifts in bins of equal numbers of rows by odds; bars are binomial errors.",
            f"Fraction of right redshifts against mean odds in {len(found['bins'])} bins; the largest difference is "
            f"{number(float(np.abs(bins['right'] - bins['odds']).max())).text}.",
            lambda: figures.odds_calibration(bins["odds"], bins["right"], bins["error"]),
        ),
        _cuts("Reliable rows", found["cuts"]),
    ]
    if "weighted" in found:
        section.blocks.append(_cuts("The same, weighted to represent the survey", found["weighted"]["cuts"]))
    section.blocks.append(
        Table(
            "Odds of the test rows and how often they are right",
            ["odds from", "to", "rows", "mean odds", "right"],
            [
                [number(one["low"]), number(one["high"]), count(one["n"]), number(one["odds"]), _measured(one, "right")]
                for one in found["bins"]
            ],
        )
    )
    return section


def _cuts(caption: str, cuts: list[dict[str, Any]]) -> Table:
    rows = []
    for cut in cuts:
        stated, measured = cut["stated"], cut["measured"]
        cells = [text("–")] * 4
        if stated:
            cells = [
                Cell(f"{stated['odds']:.4f}", stated["odds"]),
                percent(stated["share"]),
                _measured(stated, "purity"),
                percent(stated["completeness"]),
            ]
        rows.append([text(percent(cut["purity"]).text), *cells, percent(measured["share"] if measured else 0.0)])
    headers = ["purity stated", "odds of at least", "share of rows", "purity measured", "completeness"]
    return Table(caption, [*headers, "largest share with this measured purity"], rows)


def _measured(entry: dict[str, Any], name: str) -> Cell:
    return Cell(f"{percent(entry[name]).text} ± {percent(entry['error']).text}", entry[name])
