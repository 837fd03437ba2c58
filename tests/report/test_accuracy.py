"""Tables of accuracy by what was measured."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from zmill.report.accuracy import kinds_section
from zmill.report.blocks import Table

NAMES = ("sigma_mad", "eta_015", "bias", "crps")


def row(model: str, pattern: str, kind: str, crps: float) -> dict[str, str]:
    values = dict.fromkeys(NAMES, str(crps))
    return {"split": "test", "model": model, "pattern": pattern, "kind": kind, "n": "100", **values}


@pytest.mark.parametrize("chosen", ["knn", "image"])
def test_models_of_different_inputs_have_different_patterns(chosen: str) -> None:
    """Photometry has patterns of missing bands, natural and made; a model over images beside it does not."""
    patterns = [
        row("knn", "all", "natural", 0.02),
        row("image", "all", "natural", 0.01),
        row("knn", "u undetected", "natural", 0.03),
        row("knn", "without u", "made", 0.04),
        row("image", "u masked", "natural", 0.05),
    ]
    sources: Any = SimpleNamespace(patterns=patterns, names=["knn", "image"], chosen=chosen)
    section = kinds_section(sources, {"ood": {}}, "bands", "crps")
    states, _, *by_model = [block for block in section.blocks if isinstance(block, Table)]
    own = {"knn": ["all", "u undetected"], "image": ["all", "u masked"]}
    assert [cells[0].text for cells in states.rows] == own[chosen]
    shown = {cells[0].text: [cell.text for cell in cells[2:]] for cells in by_model[0].rows}
    assert shown["all"] == ["0.0200", "0.0100"]
    assert shown["without u"] == ["0.0400", "\N{EN DASH}"]
    assert shown["u masked"] == ["\N{EN DASH}", "0.0500"]
    assert by_model[0].rows[0][3].best and not by_model[0].rows[0][2].best
