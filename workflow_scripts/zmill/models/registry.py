"""The registry of model types: every file of this folder that names its class in `MODEL`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import zmill.models
from zmill.config import ConfigError, ModelSettings, nearest, parse

if TYPE_CHECKING:
    from zmill.inputs.base import InputKind
    from zmill.models.base import Model, Settings


@cache
def types() -> list[str]:
    """Names of the model types. Files are read and not imported, because imports take seconds."""
    files = [file for folder in zmill.models.__path__ for file in Path(folder).glob("*.py")]
    return sorted(file.stem for file in files if re.search(r"^MODEL\b", file.read_text(encoding="utf-8"), re.MULTILINE))


def model_class(type_: str) -> type[Model]:
    """The class of a model type.

    Raises
    ------
    ConfigError
        If there is no such type, with the name of the nearest one.
    """
    if type_ not in types():
        raise ConfigError(
            f"there is no model type {type_!r}{nearest(type_, types())}; the types there are: {', '.join(types())}"
        )
    found: type[Model] = importlib.import_module(f"zmill.models.{type_}").MODEL
    return found


def fitting(inputs: Collection[str]) -> list[str]:
    """Names of the model types that take no other input kinds than these."""
    return [name for name in types() if set(model_class(name).inputs) <= set(inputs)]


def check_models(models: Mapping[str, ModelSettings]) -> dict[str, tuple[type[Model], Settings]]:
    """Class and validated settings of every entry of `models:`.

    Raises
    ------
    ConfigError
        For an unknown type, an unknown key or a wrong value, with the name of the entry.
    """
    checked: dict[str, tuple[type[Model], Settings]] = {}
    for name, entry in models.items():
        where = f"config.yaml: models.{name}"
        try:
            cls = model_class(entry.type or name)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        checked[name] = (cls, parse(cls.Settings, entry.model_extra or {}, where))
    return checked


def check_suitable(models: Mapping[str, tuple[type[Model], Settings]], inputs: Mapping[str, InputKind]) -> None:
    """Refuse models that cannot be trained on a survey.

    models : result of `check_models`. inputs : name -> input kind of the survey.

    Raises
    ------
    ConfigError
        With the name of the entry, the cause and the remedy.
    """
    for name, (cls, settings) in models.items():
        if reason := cls.unsuitable(settings, inputs):
            raise ConfigError(f"config.yaml: models.{name}: {reason}")
