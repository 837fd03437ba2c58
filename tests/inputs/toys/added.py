"""The toy files as if they lay in `zmill/inputs/` and `zmill/models/`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmill.inputs
import zmill.models
from zmill.inputs import registry
from zmill.models import registry as models
from zmill.survey_definition import input_kinds

TOYS = Path(__file__).parent


@contextmanager
def added() -> Iterator[None]:
    """Add the toys to the registries of input kinds and models."""
    paths = [(zmill.inputs.__path__, str(TOYS / "inputs")), (zmill.models.__path__, str(TOYS / "models"))]
    for path, folder in paths:
        path.append(folder)
    caches = input_kinds, registry.kinds, models.types
    for cache in caches:
        cache.cache_clear()
    try:
        yield
    finally:
        for path, folder in paths:
            path.remove(folder)
        for cache in caches:
            cache.cache_clear()
