"""Which files a survey definition names, and what is wrong with them, told before any job starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from zmill.config import ConfigError, Survey, nearest
from zmill.survey.readers import ReadError, open_table
from zmill.survey.rows import input_columns

FULL_CHECK = 20
"""Headers of so many files are read before any job; of more files, the first, the last and some between."""


def resolve(patterns: Sequence[str], data_dir: Path, key: str, made_by_workflow: Collection[Path] = ()) -> list[Path]:
    """Paths and glob patterns below `data_dir` into files that exist, or will.

    Raises
    ------
    ConfigError
        Where a pattern fits nothing, or a file is named twice.
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
    twice = sorted(str(path) for path, times in Counter(found).items() if times > 1)
    if twice:
        raise ConfigError(f"{key}: {', '.join(twice)} is named twice; every row would be there twice")
    return found


def _absent(path: Path) -> str:
    if any(sign in path.name for sign in "*?["):
        return f"no file fits {path}"
    folder = path.parent
    if not folder.is_dir():
        return f"there is no {path}: the folder {folder} does not exist; check data_dir in config.yaml"
    return f"there is no {path}{nearest(path.name, sorted(p.name for p in folder.iterdir()))}"


def check_columns(files: Sequence[Path], survey: Survey) -> None:
    """Open the files that are there, some of them where they are many, and look for the survey's columns.

    Raises
    ------
    ConfigError
        With a line per fault: what is missing, in which file, and what is nearest to it.
    """
    there = [path for path in files if path.exists()]
    step = max(1, -(-len(there) // FULL_CHECK))
    chosen = list(dict.fromkeys([*there[::step], *there[-1:]]))
    named = [(_key(name, survey), name) for name in input_columns(survey)]
    faults = [fault for path in chosen for fault in column_faults(path, named, survey.format, survey.group)]
    if faults:
        raise ConfigError("\n".join(faults))


def column_faults(
    path: Path, named: Iterable[tuple[str, str]], format_: str | None = None, group: str | None = None
) -> list[str]:
    """Why a file is no table, or which columns it lacks, a line each.

    named : (the setting that names it, name) of every column that is to be there.
    format_, group : as `open_table` takes them.
    """
    try:
        columns = open_table(path, format_, group).columns
    except ReadError as error:
        return [str(error)]
    known = set(columns)
    return [
        f"{path}: there is no column {name!r} ({key}){nearest(name, columns) or _some(columns)}"
        for key, name in named
        if name not in known
    ]


def _key(name: str, survey: Survey) -> str:
    """Which setting asks for a column."""
    settings = survey.columns
    for key in ("object_id", "ra", "dec", "ebv", "redshift"):
        if getattr(settings, key) == name:
            return f"columns.{key}"
    for band in survey.bands:
        for kind in ("flux", "error"):
            if survey.column_of(kind, band) == name:
                return f"columns.{kind} of band {band}"
    return "columns.extra"


def _some(columns: list[str]) -> str:
    return f"; its columns are {', '.join(columns[:20])}{', ...' if len(columns) > 20 else ''}"
