"""The input files of a run. Every process of Snakemake lists them; only the main process reads them (`check`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zmill.config import ConfigError, nearest
from zmill.sections import refuse_braces, same_file
from zmill.survey_definition import Survey


@dataclass(frozen=True)
class Inputs:
    """Files of the survey, of its label sources by name, and further ones by setting; or of training and test tables instead."""

    survey: list[str]
    sources: dict[str, list[str]]
    further: dict[str, list[str]]
    train: list[str]
    test: list[str]

    @property
    def of_import(self) -> list[str]:
        """All files that the import reads."""
        return [*self.survey, *(file for files in self.further.values() for file in files)]

    @property
    def labels(self) -> list[str]:
        """The files of all label sources, each once."""
        return list(dict.fromkeys(file for files in self.sources.values() for file in files))


def find(
    survey: Survey,
    data_dir: Path | str,
    made_by_workflow: Collection[Path] = (),
    further: Mapping[str, Sequence[str]] | None = None,
) -> Inputs:
    """All files that the survey definition names: patterns expanded, sorted within each entry.

    Parameters
    ----------
    data_dir : where relative paths start.
    made_by_workflow : files that a rule will make; these need not exist yet.
    further : setting -> patterns of the files that the import reads in addition (`zmill.inputs.registry.further_files`).

    Raises
    ------
    ConfigError
        Where one is missing, or a file is given both as training and as test table.
    """

    def named(patterns: Sequence[str], key: str) -> list[str]:
        return [str(path) for path in resolve(patterns, Path(data_dir), key, made_by_workflow)]

    found = Inputs(
        survey=named(survey.files, "files"),
        sources={label.name: named(label.files or [], f"labels: {label.name}: files") for label in survey.labels},
        further={key: named(patterns, key) for key, patterns in (further or {}).items()},
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


def resolve(patterns: Sequence[str], data_dir: Path, key: str, made_by_workflow: Collection[Path] = ()) -> list[Path]:
    """Resolve paths and glob patterns below `data_dir` to files that exist or will be made.

    Raises
    ------
    ConfigError
        If a pattern has no match, or a file has braces in its path or is named twice, also by different paths.
    """
    expected = {Path(path) for path in made_by_workflow}
    found: list[Path] = []
    for pattern in patterns:
        path = data_dir / pattern
        if path.exists() or path in expected:
            found.append(path)
            continue
        start = Path(path.anchor) if Path(pattern).is_absolute() else data_dir
        fits = set(start.glob(str(path.relative_to(start))))
        fits |= {one for one in expected if one.match(str(path))}
        if not fits:
            raise ConfigError(f"{key}: {_absent(path)}")
        found += sorted(fits)
    first: dict[object, Path] = {}
    for path in found:
        try:
            refuse_braces(str(path))
        except ValueError as error:
            raise ConfigError(f"{key}: {error}") from None
        other = first.setdefault(same_file(path), path)
        if other is not path:
            also = f", also as {other}" if other != path else ""
            raise ConfigError(f"{key}: {path} is named twice{also}; every row would be there twice")
    return found


def _absent(path: Path) -> str:
    if any(sign in path.name for sign in "*?["):
        return f"no file fits {path}"
    folder = path.parent
    if not folder.is_dir():
        return f"there is no {path}: the folder {folder} does not exist; check data_dir in config.yaml"
    return f"there is no {path}{nearest(path.name, sorted(p.name for p in folder.iterdir()))}"
