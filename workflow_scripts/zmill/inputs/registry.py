"""The registry of input kinds: every file or folder of this folder that names its class in `KIND`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from zmill.config import ConfigError, ModelSettings, nearest
from zmill.sections import shown
from zmill.survey_definition import Survey, input_kinds

if TYPE_CHECKING:
    from zmill.inputs.base import InputKind

MAP = "extinction.map"
"""The setting of the map of E(B-V)."""
FIRST = "photometry"
"""The kind that comes first where a survey has several: its brightness bins the metrics."""


def names() -> tuple[str, ...]:
    """Names of the input kinds, the first one first."""
    return tuple(sorted(input_kinds(), key=lambda name: (name != FIRST, name)))


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


def further_files(survey: Survey) -> dict[str, list[str]]:
    """Setting -> patterns of all files that the import of a survey reads in addition to the survey's own."""
    ebv = {MAP: [survey.extinction.map]} if survey.extinction.map else {}
    return {
        **ebv,
        **{key: files for kind in kinds() if kind.of(survey) for key, files in kind.further_files(survey).items()},
    }


def default_models(survey: Survey, given: Mapping[str, Any]) -> dict[str, ModelSettings]:
    """The default models of a survey's first input kind, without those that are null in `models:` of the configuration.

    given : `models:`, where every entry is null.

    Raises
    ------
    ConfigError
        Where an entry is no default model, or no model is left.
    """
    first = of_survey(survey)[0]
    for name in given:
        if name not in first.models:
            raise ConfigError(
                f"config.yaml: models: {shown(name)} is null, and no default model of {first.name}{nearest(name, list(first.models))}: the "
                f"default ones are {', '.join(first.models) or 'none'}"
            )
    found = {name: ModelSettings.model_validate(entry) for name, entry in first.models.items() if name not in given}
    if not found:
        raise ConfigError("config.yaml: models: no model is left: leave out fewer, or name others")
    return found


class UnfitModels(ConfigError):
    """Models take inputs that the survey does not have."""


def check_inputs(survey: Survey, models: Mapping[str, Sequence[str]], where: str) -> None:
    """Refuse wrong sections of input kinds, and models that take inputs that the survey does not have.

    models : name -> `Model.inputs`. where : the survey definition, for messages.

    Raises
    ------
    UnfitModels
        Where models take other inputs.
    ConfigError
    """
    there = [found.name for found in of_survey(survey)]
    columns = [field.name for found in of_survey(survey) for field in found.schema(survey)]
    if clash := sorted({name for name in columns if columns.count(name) > 1 or name in survey.columns.extra}):
        raise ConfigError(f"{where}: {', '.join(clash)} would be the column of two inputs; rename it in columns.extra")
    unfit = {model: wanted for model, wanted in models.items() if not set(wanted) <= set(there)}
    if unfit:
        takes = "; ".join(f"models.{model} takes {' and '.join(wanted)}" for model, wanted in unfit.items())
        raise UnfitModels(
            f"config.yaml: {takes}; and {where} has {' and '.join(there)}: add what is missing to the survey definition, or take "
            f"these models out of `models`"
        )


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
