"""docs/models/zoo.yaml: every model type is in it, with settings that are accepted, and the pages say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from zmill.config import Config, parse
from zmill.models.registry import check_models, types


def zoo(root: Path) -> dict[str, dict[str, Any]]:
    content = yaml.safe_load((root / "docs/models/zoo.yaml").read_text(encoding="utf-8"))
    assert list(content) == ["models"], "the zoo leaves everything but the models to config.yaml"
    found: dict[str, dict[str, Any]] = content["models"]
    return found


def test_settings_are_accepted_and_every_type_has_its_own_name(root: Path) -> None:
    config = yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8"))
    merged = {**config, "models": {**config["models"], **zoo(root)}}
    checked = check_models(parse(Config, merged, "zoo.yaml").models)
    for type_ in types():
        assert type_ in zoo(root)
        assert checked[type_][0].__module__ == f"zmill.models.{type_}"


def test_pages_show_the_entries_of_the_zoo(root: Path) -> None:
    models = zoo(root)
    for type_ in types():
        page = (root / f"docs/models/{type_}.md").read_text(encoding="utf-8")
        block = re.search(r"```yaml\n(models:\n.*?)```", page, flags=re.DOTALL)
        assert block, f"{type_}.md has no configuration"
        shown = yaml.safe_load(block[1])["models"]
        assert shown == {name: entry for name, entry in models.items() if entry.get("type", name) == type_}
