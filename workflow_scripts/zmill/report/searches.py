"""Results of the searches of model settings: the course, the important settings, and the best trials."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from zmill.metrics import badness
from zmill.report import figures
from zmill.report.binned import Floats
from zmill.report.blocks import Block, Cell, Note, Section, Table, count, duration, number, percent, picture, text
from zmill.report.sources import Sources

BEST = 10
"""Number of trials in the table."""
SETTINGS = 8
"""Largest number of settings with a panel."""


def searches_section(sources: Sources) -> Section | None:
    """All searches; None where there is none."""
    found = sources.searches()
    if not found:
        return None
    section = Section("searches", "Settings searched", "Settings")
    for model, search in found.items():
        section.blocks += _search(model, search)
    return section


def _search(model: str, search: dict[str, Any]) -> list[Block]:
    trials, metric, space = search["trials"], search["metric"], search["space"]
    importance = dict(sorted(search["importance"].items(), key=lambda item: -item[1]))
    settings = list(importance) or list(space)
    scores = np.array([np.nan if trial.get("score") is None else trial["score"] for trial in trials], np.float64)
    scored = [trial for trial in trials if trial["state"] == "complete"]
    ranked = sorted(scored, key=lambda trial: (badness(metric, trial["score"]), trial["number"]))
    best, lost = ranked[0], Counter(trial["state"] for trial in trials)
    chosen = ", ".join(f"{name} {_cell(best['values'][name]).text}" for name in settings)
    blocks: list[Block] = [
        Note(
            f"{model}: {len(trials)} trials of a budget of {search['budget']}, {duration(sum(t['seconds'] for t in trials)).text} "
            f"of training; {lost['pruned']} were given up for falling behind, {lost['failed']} failed. The best by {metric} on the "
            f"validation rows, {number(best['score'], 4).text}, had {chosen}: tune/{model}/best.yaml. Test rows took no part."
        ),
        picture(
            f"search-{model}",
            f"{model}: {metric} of the trials in the order in which they ended; line: the best so far; ticks: given up or failed.",
            f"{metric} of {len(scored)} trials of {model}, from {number(np.nanmin(scores)).text} to "
            f"{number(np.nanmax(scores)).text}; the best was trial {best['number']}.",
            lambda: figures.search_course(scores, _best_so_far(scores, metric), metric),
        ),
    ]
    if importance:
        blocks.append(
            picture(
                f"importance-{model}",
                f"{model}: share of each setting in what settings by themselves explain of the differences in {metric} (fANOVA).",
                f"Importance of {len(importance)} settings of {model}; that of {settings[0]} is the largest, "
                f"{percent(importance[settings[0]]).text}.",
                lambda: figures.bars(importance),
            )
        )
    values = {name: [trial["values"][name] for trial in scored] for name in settings[:SETTINGS]}
    logarithmic = {name for name in values if space[name].get("log")}
    each = np.array([trial["score"] for trial in scored], np.float64)
    blocks.append(
        picture(
            f"settings-{model}",
            f"{model}: {metric} against each setting; diamond: the best. If it is at the end of its range, widen the range.",
            f"{metric} of {len(scored)} trials of {model} against {', '.join(values)}.",
            lambda: figures.search_settings(values, each, scored.index(best), metric, logarithmic),
        )
    )
    rows = [
        [
            Cell(str(trial["number"]), trial["number"]),
            number(trial["score"], 4),
            *(_cell(trial["values"][name]) for name in settings),
            duration(trial["seconds"]),
        ]
        for trial in ranked[:BEST]
    ]
    blocks.append(Table(f"The best trials of {model}", ["trial", metric, *settings, "time"], rows, marked=0))
    return blocks


def _best_so_far(scores: Floats, metric: str) -> Floats:
    """(n,) the best of the scores up to each, NaN before the first."""
    found, best = np.full(len(scores), np.nan), np.nan
    for index, score in enumerate(scores):
        if np.isnan(best) or badness(metric, score) < badness(metric, best):
            best = score
        found[index] = best
    return found


def _cell(value: Any) -> Cell:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    return text(", ".join(map(str, value)) if isinstance(value, list) else value)
