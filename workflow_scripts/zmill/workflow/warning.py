"""Warnings: findings of a stage that the user must know before using the results.

A stage keeps its warnings in a `Warnings` list and writes it into its JSON file under the key `warnings`:

    warnings = Warnings()
    warnings.add(f"labels: {name}: none of {rows:,} entries is accepted")   # also goes to the log
    write_json(path, {**counts, "warnings": warnings})

`collect` finds the warnings of all stages. The report shows them at its head, and the end of the run prints them. A stage
that has no JSON file in `NOTES` yet adds it there, and the file must be an input of the rule `report`.
"""

from __future__ import annotations

from pathlib import Path

from zmill.catalog.files import Damaged, read_json
from zmill.workflow.job import log

KEY = "warnings"
NOTES = {
    "import": "import.json",
    "labels": "specz/labels.json",
    "cross-match": "matches.json",
    "split": "split.json",
    "sample": "sample/sample.json",
    "evaluation": "evaluation/best.json",
    "gates": "gates.json",
}
"""The JSON file of each stage that may hold warnings, below `results/<survey>/`, in the order of the stages."""


class Warnings(list[str]):
    """The warnings of one stage, as plain text with the finding, where it is, and what to do."""

    def add(self, text: str) -> None:
        """Log a warning and keep it; one that is there already is not repeated."""
        if text not in self:
            log.warning("%s", text)
            self.append(text)


def collect(results: Path | str) -> list[tuple[str, str]]:
    """The warnings of all stages of a survey: (name of the stage, text), in the order of the stages.

    Parameters
    ----------
    results : the survey's folder of results. Stages that have not run yet have no warnings; one whose file is damaged has
        that as its warning.
    """
    found = []
    for stage, file in NOTES.items():
        path = Path(results, file)
        if path.is_file():
            found += [(stage, text.removeprefix(f"{stage}: ")) for text in _warnings(path)]
    return found


def _warnings(path: Path) -> list[str]:
    try:
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get(KEY, []), list):
            raise Damaged(path, f"no list of {KEY}")
    except Damaged as error:
        return [str(error)]
    return [str(text) for text in content.get(KEY, [])]
