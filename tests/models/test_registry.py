"""Model types are found by their file; wrong entries of `models:` are refused before any job."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from zmill.config import Config, ConfigError, parse
from zmill.models import registry


def _check(models: dict) -> dict:
    return registry.check_models(parse(Config, {"models": models}, "config.yaml").models)


def test_an_entry_is_its_class_and_its_settings() -> None:
    checked = _check({"trainz": {}, "floor": {"type": "trainz"}})
    assert list(checked) == ["trainz", "floor"]
    cls, settings = checked["floor"]
    assert isinstance(settings, cls.Settings)


def test_an_unknown_type_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"config.yaml: models.train_z: .*'train_z'; did you mean 'trainz'"):
        _check({"train_z": {}})


def test_an_unknown_key_is_refused_where_it_stands() -> None:
    with pytest.raises(ConfigError, match=r"config.yaml: models.floor: bins: unknown key"):
        _check({"floor": {"type": "trainz", "bins": 3}})


@pytest.mark.parametrize("type_", registry.types())
def test_every_key_is_on_the_page_of_its_model(type_: str, root: Path) -> None:
    """In a table; keys that are those of another model, on the page of that one, which is linked."""
    page = (root / "docs/models" / f"{type_}.md").read_text(encoding="utf-8")
    tables = " ".join(line for line in page.splitlines() if line.startswith("|"))
    told = set(re.findall(r"`(\w+)`", tables))
    of_models = {registry.model_class(one).Settings: one for one in registry.types()}
    wanted = set()
    for name, field in registry.model_class(type_).Settings.model_fields.items():
        wanted.add(name)
        kind = field.annotation
        of_other = [of_models[base] for base in getattr(kind, "__mro__", ()) if base in of_models]
        if of_other:
            assert f"`{name}`" in tables and f"({of_other[0]}.md)" in tables
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            wanted |= set(kind.model_fields)
    assert not wanted - told


def test_naming_the_types_starts_nothing_heavy(root: Path) -> None:
    program = (
        "import sys; from zmill.models import registry; assert registry.types(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root / "workflow_scripts")
