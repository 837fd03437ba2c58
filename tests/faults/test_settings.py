"""Every key of the configuration with values that nobody means: refused before any job in plain lines, or harmless.

Keys are taken from the declarations, so a new one is tried, too. A value is harmless where what zmill makes of it is what it says.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from zmill.check import check
from zmill.config import Config, ConfigError, parse
from zmill.inputs.image.settings import ImageSettings
from zmill.inputs.image.sources import source_types
from zmill.inputs.registry import further_files
from zmill.labels.base import source_of, sources
from zmill.models.registry import check_models, model_class, types
from zmill.sections import Section
from zmill.survey_definition import LabelSource, Survey
from zmill.workflow.input_files import find

if TYPE_CHECKING:
    from conftest import Tally  # several folders of tests have a conftest

WRONG: dict[str, Any] = {
    "null": None,
    "true": True,
    "text": "nonsense",
    "empty text": "",
    "not a number": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "negative": -1,
    "zero": 0,
    "a fraction": 0.37,
    "huge whole number": 10**30,
    "whole number of 5,000 digits": 10**5000,
    "huge number": 1e308,
    "tiny number": 5e-324,
    "empty list": [],
    "list": [[]],
    "keys and values": {"a": {"b": 1}},
    "braces": "a{b}c",
    "other letters": "naïve-Ångström",
    "tab": "tab\there",
    "control character": "bell\x07",
    "half a character": "\ud800",
    "5,000 characters": "x" * 5000,
    "date": date(2020, 1, 1),
    "unknown variable": "$ZMILL_NOWHERE/x",
    "unknown user": "~zmill_nobody/x",
    "climbs out": "../../../../etc/hostname",
    "other scheme": "file:///etc/hostname",
    "number as text": "0.5",
}
UNKNOWN = "unknown key"
PYDANTIC = re.compile(
    r"Input should|[Pp]ydantic|Value error|validation error|type=|Traceback|\[key\]|valid (number|integer|string)"
)
BANDS = ["g", "r", "i"]
ROWS = 600


# ---------------------------------------------------------------------------------------------- what is tried


def written(section: Section) -> dict[str, Any]:
    """A section as a user would write it, every key given."""
    return section.model_dump(mode="json", by_alias=True)


def config() -> dict[str, Any]:
    search = {"space": {"lr": {"low": 0.001, "high": 0.1}, "batch": [16, 32]}, "trials": 3}
    values = {
        "survey": "mine",
        "models": {"knn": {}, "cnn": {}},
        "tune": {"cnn": search},
        "gates": {"metrics": {"crps": 1.0}},
    }
    found = written(parse(Config, values, "config.yaml"))
    for dimension in found["tune"]["cnn"]["space"].values():
        for key in [key for key, value in dimension.items() if value in (None, False)]:
            del dimension[key]
    return found


def survey() -> dict[str, Any]:
    columns = {
        "object_id": "id",
        "ra": "ra",
        "dec": "dec",
        "flux": "mag_{band}",
        "error": "err_{band}",
        "ebv": "ebv",
        "extra": ["size"],
    }
    return {
        "files": ["s.csv"],
        "columns": columns,
        "bands": BANDS,
        "filters": {band: f"lsst2023-{band}" for band in BANDS},
        "extinction": {"coefficients": dict.fromkeys(BANDS, 2.0)},
        "cuts": {"bright": {"column": "mag_g", "min": 15, "max": 28}},
        "labels": [label("file")],
    }


def label(source: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": "one", "source": source}
    if "files" in sources()[source].Settings.model_fields:
        entry["files"] = ["s.csv"]
    if source in ("file", "xmatch"):
        entry |= {"columns": {"ra": "ra", "dec": "dec", "redshift": "z"}, "quality": 4}
    if source == "xmatch":
        entry["catalog"] = "vizier:V/154/sdss16"
    _, settings = source_of(LabelSource.model_validate(entry))
    found = written(settings)
    if found.get("quality") is not None and found.get("scheme") is None:
        found.pop("scheme")
    return found


def model(type_: str) -> dict[str, Any]:
    return written(model_class(type_).Settings.model_validate({}))


def paths(values: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key, those with keys of their own, too, and the first entry of every list."""
    inside = (
        values.items() if isinstance(values, dict) else list(enumerate(values))[:1] if isinstance(values, list) else ()
    )
    for key, value in inside:
        yield (*above, key)
        yield from paths(value, (*above, key))


def changed(values: dict[str, Any], path: tuple[Any, ...], fault: str) -> dict[str, Any]:
    """With a wrong value in the place of a key, or an unknown key beside it."""
    found = deepcopy(values)
    place: Any = found
    for key in path[:-1]:
        place = place[key]
    if fault == UNKNOWN:
        place[f"{path[-1]}y"] = 1
    else:
        place[path[-1]] = WRONG[fault]
    return found


def faults(values: dict[str, Any], path: tuple[Any, ...]) -> list[str]:
    named = isinstance(path[-1], str) and not any(key in ("space", "metrics", "overrides") for key in path[:-1])
    return [*WRONG, *([UNKNOWN] if named else [])]


# ------------------------------------------------------------------------------------------------- the verdict


def plain(error: ConfigError, path: tuple[Any, ...], fault: str) -> None:
    """The message has few lines, each short, printable and in plain English, and names the key."""
    text = str(error)
    lines = text.splitlines()
    assert len(lines) <= 4, text[:2000]
    assert all(len(line) < 900 for line in lines), text[:2000]
    assert not PYDANTIC.search(text), text
    assert text.replace("\n", "").isprintable(), repr(text)
    names = [str(key) for key in path if isinstance(key, str)]
    assert any(name in text for name in names[-2:]), f"{names}: {text}"


def means(value: Any, made: Any) -> bool:
    """Whether zmill made of a value what it says."""
    if isinstance(made, bool):
        return {"1": "true", "0": "false"}.get(str(value), str(value)).lower() == str(made).lower()
    if isinstance(made, int | float):
        return not isinstance(value, bool) and float(value) == float(made)
    if isinstance(made, dict) and isinstance(value, dict):
        return all(means(value[key], entry) for key, entry in made.items() if key in value)
    if isinstance(made, list):
        value = value if isinstance(value, list) else [] if value is None else [value]
        return len(value) == len(made) and all(map(means, value, made))
    return bool(value == made)


def harmless(made: Any, path: tuple[Any, ...], value: Any) -> bool:
    """Whether a wrong value that was taken is what it says; null may have taken out an entry with a name."""
    for key in path:
        if isinstance(made, dict) and key not in made:
            return value is None
        if isinstance(made, list):  # which may be sorted, each value once
            return any(means(value, entry) for entry in made)
        made = made[key]
    json.dumps(made, allow_nan=False)
    return means(value, made)


def wanted(request: pytest.FixtureRequest, *what: object) -> bool:
    """All faults where long tests run; every fourth else."""
    return "long" in request.node.keywords or crc32(repr(what).encode()) % 4 == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey with labels, in one small file."""
    found = tmp_path_factory.mktemp("settings")
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {"id": np.arange(ROWS), "ra": rng.uniform(10, 11, ROWS), "dec": rng.uniform(0, 1, ROWS)}
    for band in BANDS:
        columns |= {f"mag_{band}": rng.uniform(18, 25, ROWS), f"err_{band}": rng.uniform(0.01, 0.2, ROWS)}
    columns |= {"ebv": np.full(ROWS, 0.1), "size": rng.uniform(1, 9, ROWS), "z": rng.uniform(0.1, 1, ROWS)}
    pyarrow.csv.write_csv(pa.table(columns), found / "s.csv")
    return found


def started(settings: Config, definition: Survey, folder: Path) -> None:
    """All that is looked at before the first job."""
    check(settings, definition, find(definition, folder, further=further_files(definition)))


def every(values: dict[str, Any], below: tuple[Any, ...] = ()) -> list[Any]:
    found = [path for path in paths(values) if path[: len(below)] == below and path != below]
    return [pytest.param(path, id=".".join(map(str, path))) for path in found]


CHOICES = pytest.mark.parametrize("amount", ["some", pytest.param("all", marks=pytest.mark.long)])


@CHOICES
def test_config(amount: str, request: pytest.FixtureRequest, folder: Path, tally: Tally) -> None:
    """`config.yaml`, but for the models' own settings."""
    base, definition = config(), parse(Survey, survey(), "surveys/mine.yaml")
    base["data_dir"] = str(folder)
    started(parse(Config, base, "config.yaml"), definition, folder)
    for path in paths(base):
        if path[0] == "models" and len(path) > 2:
            continue
        for fault in faults(base, path):
            if not wanted(request, path, fault):
                continue
            with tally(f"settings of config.yaml: {fault}"):
                values = changed(base, path, fault)
                try:
                    settings = parse(Config, values, "config.yaml")
                    if path[0] == "survey":
                        continue  # there is no file of that name, which `load` tells
                    made = written(settings)
                    started(settings, definition, folder)
                except ConfigError as error:
                    plain(error, path, fault)
                    continue
                assert fault != UNKNOWN, path
                assert harmless(made, path, WRONG[fault]), (path, fault)


@CHOICES
@pytest.mark.parametrize("type_", types())
def test_models(type_: str, amount: str, request: pytest.FixtureRequest, tally: Tally) -> None:
    """The settings of every type of model."""
    base = model(type_)
    for path in paths(base):
        for fault in faults(base, path):
            if not wanted(request, type_, path, fault):
                continue
            with tally(f"settings of models: {fault}"):
                values = {"models": {type_: changed(base, path, fault)}}
                try:
                    settings = parse(Config, values, "config.yaml")
                    _, own = check_models(settings.models)[type_]
                except ConfigError as error:
                    plain(error, path, fault)
                    continue
                assert fault != UNKNOWN, path
                if path[-1] != "extra" and "extra" not in path[:-1]:  # held against the columns that there are
                    assert harmless(written(own), path, WRONG[fault]), (path, fault)


@CHOICES
def test_survey(amount: str, request: pytest.FixtureRequest, folder: Path, tally: Tally) -> None:
    """`surveys/<name>.yaml`, but for the settings of label sources."""
    settings = parse(Config, {"survey": "mine", "data_dir": str(folder)}, "config.yaml")
    base = written(parse(Survey, survey(), "surveys/mine.yaml"))
    base["cuts"]["bright"].pop("equals")
    base.pop("tables")
    started(settings, parse(Survey, base, "surveys/mine.yaml"), folder)
    for path in paths(base):
        if path[0] == "labels" and len(path) > 2:
            continue
        for fault in faults(base, path):
            if not wanted(request, path, fault):
                continue
            with tally(f"settings of a survey: {fault}"):
                try:
                    definition = parse(Survey, changed(base, path, fault), "surveys/mine.yaml")
                    made = written(definition)
                    started(settings, definition, folder)
                except ConfigError as error:
                    plain(error, path, fault)
                    continue
                assert fault != UNKNOWN, path
                assert path[0] == "labels" or path == ("description",) or harmless(made, path, WRONG[fault]), (
                    path,
                    fault,
                )


@CHOICES
@pytest.mark.parametrize("source", sorted(sources()))
def test_label_sources(source: str, amount: str, request: pytest.FixtureRequest, tally: Tally) -> None:
    """The settings of every source of labels."""
    base = label(source)
    for path in paths(base):
        for fault in faults(base, path):
            if not wanted(request, source, path, fault) or path == ("source",):
                continue
            with tally(f"settings of label sources: {fault}"):
                values = {**survey(), "labels": [changed(base, path, fault)]}
                try:
                    definition = parse(Survey, values, "surveys/mine.yaml")
                    _, own = source_of(definition.labels[0])
                except ConfigError as error:
                    plain(error, path, fault)
                    continue
                assert fault != UNKNOWN, path
                assert harmless(written(own), path, WRONG[fault]), (path, fault)


def test_every_declared_number_has_two_bounds() -> None:
    """And is finite: what is not bounded where it is declared breaks later, in whatever takes it."""
    declared = [
        Config,
        Survey,
        *(model_class(type_).Settings for type_ in types()),
        *(s.Settings for s in sources().values()),
        ImageSettings,
        *(s.Settings for s in source_types().values()),
    ]
    open_ended = {
        f"{section.__module__}.{section.__name__}: {path}"
        for section in declared
        for path in _open_ended(section.model_json_schema(by_alias=True), "")
    }
    assert open_ended == set()


FREE = re.compile(r"/(undetected|unobserved|upper_limit|Range|equals|choices)(/|$)")
"""Values of the user's own files, and choices, which the model's own settings bound."""


def _open_ended(schema: Any, path: str) -> Iterator[str]:
    if isinstance(schema, list):
        for entry in schema:
            yield from _open_ended(entry, path)
        return
    if not isinstance(schema, dict):
        return
    if schema.get("type") in ("number", "integer") and not FREE.search(path):
        low = {"minimum", "exclusiveMinimum"} & set(schema)
        high = {"maximum", "exclusiveMaximum"} & set(schema)
        if not (low and high) and "const" not in schema:
            yield path
    for key, value in schema.items():
        if key != "default" and isinstance(value, dict | list):
            yield from _open_ended(value, f"{path}/{key}")
