"""What a search may try, held against the settings of its model before any job, and read back from a trial."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from zmill.config import Config, ConfigError, Dimension, nearest, parse
from zmill.inputs.photometry.features import check_extra
from zmill.metrics import check_metric
from zmill.models.base import Settings
from zmill.models.registry import model_class

GONE_THROUGH = 64
"""Most combinations of choices that are tried one after the other instead of being proposed."""


def check_searches(settings: Config, extra: Sequence[str], texts: Collection[str] = ()) -> None:
    """Refuse a search of what is no model or no setting, or that tries a value which the model would refuse.

    Parameters
    ----------
    extra : the survey's `columns.extra`; `texts` : those of them that hold text in the files.

    Raises
    ------
    ConfigError
        Naming the search, the setting, what was found and what was expected.
    """
    for name, search in settings.tune.items():
        where = f"config.yaml: tune.{name}"
        entry = settings.models.get(name)
        if entry is None:
            known = list(settings.models)
            raise ConfigError(
                f"{where}: there is no {name!r} under models:{nearest(name, known)}; the models there are: {', '.join(known)}"
            )
        if search.metric is not None:
            check_metric(search.metric, f"{where}.metric")
        own = model_class(entry.type or name).Settings
        for setting, dimension in search.space.items():
            for value in _extremes(own, setting, dimension, f"{where}.space"):
                checked = parse(own, changed(entry.model_extra or {}, {setting: value}), f"{where}.space")
                check_extra(checked, extra, name, texts)
            inside = [other for other in search.space if other.startswith(f"{setting}.")]
            if inside:
                raise ConfigError(
                    f"{where}.space: {setting} holds {', '.join(inside)}: search either it as a whole or what is in it"
                )


def changed(settings: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others in their place: `networks.width` takes the place of `width` under `networks`."""
    found = dict(settings)
    for path, value in chosen.items():
        name, _, inner = path.partition(".")
        if inner:
            held = found.get(name)
            value = changed(held if isinstance(held, Mapping) else {}, {inner: value})
        found[name] = value
    return found


def beside(settings: Mapping[str, Any], space: Iterable[str]) -> dict[str, Any]:
    """Settings without those that are searched."""
    found = dict(settings)
    for path in space:
        name, _, inner = path.partition(".")
        if not inner:
            found.pop(name, None)
        elif isinstance(found.get(name), Mapping):
            found[name] = beside(found[name], [inner])
            if not found[name]:
                del found[name]
    return found


def further_inputs(settings: Mapping[str, Any], space: Mapping[str, Dimension]) -> tuple[str, ...]:
    """Every column of `columns.extra` that a trial may take as an input."""
    tried = space["extra"].choices if "extra" in space else [settings.get("extra", ())]
    return tuple(dict.fromkeys(name for names in tried or () for name in names if name != "ebv"))


def type_of(own: type[Settings], setting: str) -> Any:
    """The declared type of a setting, or None where there is no such setting."""
    found: Any = own
    for name in setting.split("."):
        there = isinstance(found, type) and issubclass(found, Settings) and name in found.model_fields
        found = found.model_fields[name].annotation if there else None
    return found


def _extremes(own: type[Settings], setting: str, dimension: Dimension, where: str) -> list[Any]:
    """Values between which all others are: what the model takes of these it takes of all."""
    if dimension.choices is not None:
        return dimension.choices
    kind = type_of(own, setting)
    if kind is None:
        return [dimension.low]
    if kind not in (int, float):
        raise ConfigError(f"{where}.{setting}: {setting} is not a number: give a list of choices")
    ends = [dimension.low, dimension.high]
    if kind is float:
        return ends
    for number in (*ends, dimension.step or 1):
        if not float(number or 0).is_integer():
            raise ConfigError(f"{where}.{setting}: {setting} is a whole number, found {number:g}")
    return [int(number or 0) for number in ends]


def combination(space: Mapping[str, Dimension], seed: int, place: int) -> dict[str, Any] | None:
    """What the trial of a place tries of a space that is gone through: one of few choices, each combination once.

    Returns
    -------
    Choices as Optuna keeps them, in an order drawn from the seed; an empty dictionary where all were tried at places
    before; None where the space is too large, or has ranges.
    """
    choices = [[label(choice) for choice in dimension.choices or ()] for dimension in space.values()]
    if not all(choices) or math.prod(map(len, choices)) > GONE_THROUGH:
        return None
    every = list(itertools.product(*choices))
    if place >= len(every):
        return {}
    return dict(zip(space, every[np.random.default_rng(seed).permutation(len(every))[place]], strict=True))


def label(choice: Any) -> Any:
    """A choice as Optuna keeps it: numbers and words as they are, lists as their JSON."""
    return json.dumps(choice) if isinstance(choice, list | dict) else choice


def values(space: Mapping[str, Dimension], tried: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial tried as values of settings."""
    found = dict(tried)
    for setting, dimension in space.items():
        if dimension.choices is not None:
            found[setting] = next(choice for choice in dimension.choices if label(choice) == tried[setting])
    return found
