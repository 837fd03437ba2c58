"""The files that a run starts from. Every process of Snakemake asks for them; only the main one looks into them (`check`)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from zmill.config import ConfigError, Survey
from zmill.survey.check import resolve


@dataclass(frozen=True)
class Inputs:
    """Files of the survey, its label sources by name, and extinction; or of training and test tables in their place."""

    survey: list[str]
    sources: dict[str, list[str]]
    extinction: list[str]
    train: list[str]
    test: list[str]

    @property
    def labels(self) -> list[str]:
        """The files of all label sources, each once."""
        return list(dict.fromkeys(file for files in self.sources.values() for file in files))


def find(survey: Survey, data_dir: Path | str, made_by_workflow: Collection[Path] = ()) -> Inputs:
    """All files that the survey definition names: patterns expanded, sorted within each entry.

    Parameters
    ----------
    data_dir : where relative paths start.
    made_by_workflow : files that a rule will make; those that do not exist yet are taken on trust.

    Raises
    ------
    ConfigError
        Where one is missing, or a file is given both as training and as test table.
    """

    def named(patterns: list[str], key: str) -> list[str]:
        return [str(path) for path in resolve(patterns, Path(data_dir), key, made_by_workflow)]

    found = Inputs(
        survey=named(survey.files, "files"),
        sources={label.name: named(label.files or [], f"labels: {label.name}: files") for label in survey.labels},
        extinction=named([survey.extinction.map] if survey.extinction.map else [], "extinction.map"),
        train=named(survey.tables.train if survey.tables else [], "tables.train"),
        test=named(survey.tables.test if survey.tables else [], "tables.test"),
    )
    trained = {Path(file).resolve(): file for file in found.train}
    both = [
        f"{file} (tables.train: {trained[path]})" for file in found.test if (path := Path(file).resolve()) in trained
    ]
    if both:
        raise ConfigError(
            f"tables.test: {', '.join(both)} is a training table, too: every metric would be of rows that were trained on; "
            "give the test rows as a file of their own"
        )
    return found
