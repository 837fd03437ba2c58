"""The registry of input kinds: every file or folder of this folder that names its class in `KIND`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zmill.survey_definition import Survey

if TYPE_CHECKING:
    from zmill.inputs.base import InputKind

FIRST = "photometry"
"""The kind that comes first where a survey has several: its brightness bins the metrics."""


@cache
def names() -> tuple[str, ...]:
    """Names of the input kinds. Files are read and not imported."""
    here = Path(__file__).parent
    files = {path.stem: path for path in here.glob("*.py")} | {
        path.parent.name: path for path in here.glob("*/__init__.py")
    }
    found = {
        name for name, path in files.items() if re.search(r"^KIND\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    return tuple(sorted(found, key=lambda name: (name != FIRST, name)))


def kind(name: str) -> type[InputKind]:
    """The class of an input kind."""
    found: type[InputKind] = importlib.import_module(f"zmill.inputs.{name}").KIND
    return found


@cache
def kinds() -> tuple[type[InputKind], ...]:
    """The classes of all input kinds."""
    return tuple(map(kind, names()))


def of_survey(survey: Survey) -> list[InputKind]:
    """The input kinds that a survey has, the first one first."""
    return [found for found in (kind.of(survey) for kind in kinds()) if found is not None]


def settings_of(survey: Survey, training: bool = True) -> dict[str, dict[str, Any]]:
    """What `from_json` makes the input kinds of a survey from; the parameter of rules.

    training : with the keys that matter to training alone.
    """
    return {
        found.name: {key: value for key, value in found.to_json().items() if training or key not in found.training_only}
        for found in of_survey(survey)
    }


def from_json(content: Mapping[str, Any], wanted: Iterable[str] | None = None) -> tuple[InputKind, ...]:
    """The input kinds of `settings_of`, all or those that are `wanted`, in that order."""
    return tuple(kind(name).from_json(content[name]) for name in (content if wanted is None else wanted))
