"""Sources of stamps that are not in the survey's own files: one file per type, with a class `Source`.

A type is a value of `image.source.type`. Its `Settings` are the other keys of `image.source`.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from pathlib import Path
from typing import Any

from zmill.inputs.further import Further
from zmill.inputs.image.settings import ImageSettings
from zmill.inputs.image.sources.base import FILES, SourceSettings, StampSource
from zmill.sections import ConfigError, nearest, parse, shown

__all__ = ["FILES", "SourceSettings", "StampSource", "open_source", "settings_of", "source_types"]

WHERE = "survey definition: image.source"


def source_types() -> dict[str, type[StampSource[Any]]]:
    """The types, by name."""
    names = [info.name for info in pkgutil.iter_modules(__path__) if info.name != "base"]
    return {name: importlib.import_module(f"{__name__}.{name}").Source for name in sorted(names)}


def settings_of(section: ImageSettings) -> SourceSettings:
    """The validated settings of `image.source`.

    Raises
    ------
    ConfigError
        Where there is no such type, or one of its keys is wrong.
    """
    given, types = section.source or {}, source_types()
    name = given.get("type")
    if not isinstance(name, str) or name not in types:
        raise ConfigError(
            f"{WHERE}.type: there is no type {shown(name)}{nearest(str(name), list(types))}; the types are {', '.join(types)}"
        )
    found: SourceSettings = parse(types[name].Settings, given, WHERE)
    return found


def open_source(section: ImageSettings, further: Further, again: bool = False) -> StampSource[Any]:
    """The source of `image.source`; its index of stamps is kept for the next call with the same files.

    again : at the start of an import, before which files may have changed.
    """
    if again:
        _opened.cache_clear()
    open_table: Any = further.open_table
    return _opened(section.model_dump_json(), further.files.get(FILES, ()), open_table)


@lru_cache(maxsize=2)
def _opened(section: str, files: tuple[Path, ...], open_table: Any) -> StampSource[Any]:
    image = ImageSettings.model_validate_json(section)
    settings = settings_of(image)
    return source_types()[settings.type](settings, image, files, open_table)
