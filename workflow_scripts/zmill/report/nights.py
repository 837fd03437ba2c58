"""Result of a night: the release gates, and the choice of the deployed model."""

from __future__ import annotations

from zmill.release.gates import sentence
from zmill.report.blocks import Note, Section, Table, number, text
from zmill.report.sources import Sources

SHOWN = 10
"""Largest number of decisions that are shown."""


def nights_section(sources: Sources) -> Section | None:
    """The gates, and the latest decisions between the deployed model and its challengers."""
    gates, champion = sources.json("gates.json"), sources.json("champion.json")
    if gates is None or champion is None:
        return None
    section = Section("nights", "Fit to be published?", "Publishing")
    against = f"release {gates['since']}" if gates["since"] else "no earlier release of the same settings"
    verdict = "It may be published" if gates["passed"] else "It is not published, and the old release stays"
    reasons = "; ".join(sentence(check) for check in gates["checks"] if not check["passed"])
    section.blocks.append(Note(f"{verdict}. Held against {against}." + (f" {reasons}." if reasons else "")))
    if gates["checks"]:
        rows = [
            [
                text(check["gate"]),
                text("–") if check["found"] is None else number(check["found"]),
                number(check["limit"]),
                text("within" if check["passed"] else "beyond"),
            ]
            for check in gates["checks"]
        ]
        section.blocks.append(Table("Gates (config.yaml, gates)", ["gate", "found", "limit", ""], rows))
    section.blocks.append(
        Note(
            f"Rows are predicted by {champion['model']} ({champion['hash']}), the model in use since {champion['since']}."
        )
    )
    decided = [
        [text(one["when"]), text(one["challenger"]), text("yes" if one["won"] else "no"), text(one["why"])]
        for one in champion["history"][:SHOWN]
    ]
    section.blocks.append(
        Table("Models that were trained, latest first", ["when (UTC)", "model", "in use then", "why"], decided)
    )
    return section
