"""The table of metrics by pattern of missing data: natural patterns, and those of the missing-data tests."""

from __future__ import annotations

import csv
import io
from typing import Any

from zmill import metrics
from zmill.inputs.degradation import AS_OBSERVED

COLUMNS = ("model", "split", "kind", "pattern", "n", *metrics.ALL)
SPLITS = ("valid", "test")
"""Splits in which the missing-data tests are made."""


def name_of(entry: dict[str, Any]) -> str:
    """Name of a natural pattern: the parts of a row (bands) in each state; those that are not named are measured."""
    states = {name: parts for name, parts in entry.items() if isinstance(parts, list)}
    name = "; ".join(f"{state} {' '.join(parts)}" for state, parts in states.items() if parts)
    return name or ("all measured" if states else AS_OBSERVED)


def table(evaluations: dict[str, dict[str, Any]]) -> str:
    """The content of `patterns.csv`: a row per split, pattern and model; values are empty where undefined.

    evaluations : model -> content of its `metrics.json`.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for split in SPLITS:
        by_pattern: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for model in sorted(evaluations):
            found = evaluations[model]["splits"][split]
            named = [("natural", name_of(entry), entry) for entry in found.get("patterns", [])]
            named += [("made", entry["pattern"], entry) for entry in found.get("made", [])]
            for kind, name, entry in named:
                board = {key: "" if value is None else f"{value:.6g}" for key, value in (entry["board"] or {}).items()}
                row = {"model": model, "split": split, "kind": kind, "pattern": name, "n": entry["n"], **board}
                by_pattern.setdefault((kind, name), []).append(row)
        for rows in by_pattern.values():
            writer.writerows(rows)
    return text.getvalue()
