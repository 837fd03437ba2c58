"""Pages of models show configurations that are accepted; docs/models/zoo*.yaml have those of one input kind together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from zmill.config import Config, parse
from zmill.models.registry import check_models, model_class, types

FILES = {("photometry",): "zoo.yaml", ("spectrum",): "zoo_spectrum.yaml"}
"""Input kinds -> the file of the models that take them: all models of a file can be trained on the same survey."""


def zoo(root: Path, inputs: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    content = yaml.safe_load((root / "docs/models" / FILES[inputs]).read_text(encoding="utf-8"))
    assert list(content) == ["models"], "the zoo leaves everything but the models to config.yaml"
    found: dict[str, dict[str, Any]] = content["models"]
    return found


@pytest.mark.parametrize("inputs", FILES, ids="+".join)
def test_settings_are_accepted_and_every_type_has_its_own_name(root: Path, inputs: tuple[str, ...]) -> None:
    config = yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8"))
    merged = {**config, "models": zoo(root, inputs)}
    checked = check_models(parse(Config, merged, FILES[inputs]).models)
    assert {cls.inputs for cls, _ in checked.values()} == {inputs}
    for type_ in set(types()) & set(checked):
        assert checked[type_][0].__module__ == f"zmill.models.{type_}"


@pytest.mark.parametrize("type_", types())
def test_pages_show_configurations_and_those_of_the_zoo(root: Path, type_: str) -> None:
    """A type that is not in the zoo has a page with its configuration all the same."""
    page = (root / f"docs/models/{type_}.md").read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(models:\n.*?)```", page, flags=re.DOTALL)
    assert block, f"{type_}.md has no configuration"
    shown = yaml.safe_load(block[1])["models"]
    check_models(parse(Config, {"models": shown}, f"{type_}.md").models)
    models = zoo(root, model_class(type_).inputs) if model_class(type_).inputs in FILES else {}
    assert type_ not in models or shown == {
        name: entry for name, entry in models.items() if entry.get("type", name) == type_
    }
