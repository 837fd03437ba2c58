"""Search spaces: their check against the settings of the model before any job, and the settings of a trial."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from zmill.config import Config, ConfigError, Dimension, nearest, parse
from zmill.inputs.base import InputKind
from zmill.inputs.photometry.extra import check_extra
from zmill.metrics import check_metric
from zmill.models.base import Settings
from zmill.models.registry import model_class

GRID_SEARCH = 64
"""Largest number of combinations that are all tried (grid search) instead of proposed by the sampler."""
ROWS, NOISE = "sample.rows", "sample.noise"
OF_SAMPLE = {ROWS: int, NOISE: float}
"""What a study may vary besides the settings of the model, and its type: the number of training rows, spread evenly over the sky, and the
noise that is added to training, validation and calibration rows, in units of their errors."""


def check_searches(
    settings: Config, extra: Sequence[str], texts: Collection[str] = (), inputs: Mapping[str, InputKind] | None = None
) -> None:
    """Refuse a search of an unknown model or setting, or with a value that the model refuses.

    Parameters
    ----------
    extra : the survey's `columns.extra`; `texts` : those of them that hold text in the files.
    inputs : name -> input kind of the survey; None: not compared with the settings.

    Raises
    ------
    ConfigError
        With the search, the setting, the value found and what is expected.
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
        cls = model_class(entry.type or name)
        own = cls.Settings
        for setting, dimension in search.space.items():
            if setting in OF_SAMPLE:
                kinds = [] if inputs is None else [inputs[kind] for kind in cls.inputs]
                _check_of_sample(setting, _extremes(own, setting, dimension, f"{where}.space"), kinds, f"{where}.space")
                continue
            for value in _extremes(own, setting, dimension, f"{where}.space"):
                checked = parse(own, changed(entry.model_extra or {}, {setting: value}), f"{where}.space")
                check_extra(checked, extra, name, texts)
                if inputs is not None and (reason := cls.unsuitable(checked, inputs)):
                    raise ConfigError(f"{where}.space.{setting}: {reason}")
            inside = [other for other in search.space if other.startswith(f"{setting}.")]
            if inside:
                raise ConfigError(
                    f"{where}.space: {setting} holds {', '.join(inside)}: search either {setting} or the settings in it"
                )


def _check_of_sample(setting: str, values: Iterable[Any], kinds: Iterable[InputKind], where: str) -> None:
    """Refuse a number of rows below 1, a noise below 0, and noise for input kinds that cannot be made noisier."""
    least, expected = (1, "a whole number from 1 on") if setting == ROWS else (0, "a number from 0 on")
    for value in values:
        good = (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= least
        )
        if not good or (setting == ROWS and not float(value).is_integer()):
            raise ConfigError(f"{where}.{setting}: found {value!r}, expected {expected}")
    without = [kind.name for kind in kinds if setting == NOISE and not kind.noisier]
    if without:
        raise ConfigError(f"{where}.{setting}: noise cannot be added to {', '.join(without)}: leave {setting} out")


def of_model(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the model among what a trial varies."""
    return {name: value for name, value in chosen.items() if name not in OF_SAMPLE}


def changed(settings: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with some replaced: the key `networks.width` replaces `width` under `networks`."""
    found = dict(settings)
    for path, value in chosen.items():
        name, _, inner = path.partition(".")
        if inner:
            held = found.get(name)
            value = changed(held if isinstance(held, Mapping) else {}, {inner: value})
        found[name] = value
    return found


def fixed_settings(settings: Mapping[str, Any], space: Iterable[str]) -> dict[str, Any]:
    """The settings without those that are searched."""
    found = dict(settings)
    for path in space:
        name, _, inner = path.partition(".")
        if not inner:
            found.pop(name, None)
        elif isinstance(found.get(name), Mapping):
            found[name] = fixed_settings(found[name], [inner])
            if not found[name]:
                del found[name]
    return found


def further_inputs(settings: Mapping[str, Any], space: Mapping[str, Dimension]) -> tuple[str, ...]:
    """All columns of `columns.extra` that a trial may use as input."""
    tried = space["extra"].choices if "extra" in space else [settings.get("extra", ())]
    return tuple(dict.fromkeys(name for names in tried or () for name in names if name != "ebv"))


def type_of(own: type[Settings], setting: str) -> Any:
    """The declared type of a setting, or None where there is no such setting."""
    if setting in OF_SAMPLE:
        return OF_SAMPLE[setting]
    found: Any = own
    for name in setting.split("."):
        there = isinstance(found, type) and issubclass(found, Settings) and name in found.model_fields
        found = found.model_fields[name].annotation if there else None
    return found


def _extremes(own: type[Settings], setting: str, dimension: Dimension, where: str) -> list[Any]:
    """The extreme values of a dimension; if the model accepts these, it accepts all values."""
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


def combination(space: Mapping[str, Dimension], seed: int, number: int) -> dict[str, Any] | None:
    """The settings of a trial of a grid search, which tries each combination once.

    Returns
    -------
    Choices as Optuna stores them, in an order drawn from the seed; an empty dictionary if earlier trials have all
    combinations; None if the space is too large for a grid search or has ranges.
    """
    choices = [[label(choice) for choice in dimension.choices or ()] for dimension in space.values()]
    if not all(choices) or math.prod(map(len, choices)) > GRID_SEARCH:
        return None
    every = list(itertools.product(*choices))
    if number >= len(every):
        return {}
    return dict(zip(space, every[np.random.default_rng(seed).permutation(len(every))[number]], strict=True))


def label(choice: Any) -> Any:
    """A choice as Optuna stores it: numbers and strings unchanged, lists as JSON."""
    return json.dumps(choice) if isinstance(choice, list | dict) else choice


def values(space: Mapping[str, Dimension], tried: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a trial as values of settings."""
    found = dict(tried)
    for setting, dimension in space.items():
        if dimension.choices is not None:
            found[setting] = next(choice for choice in dimension.choices if label(choice) == tried[setting])
    return found
