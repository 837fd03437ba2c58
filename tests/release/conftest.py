"""Fixtures of the release tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from release_sky import fill


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A working folder that can be released."""
    return fill(tmp_path / "results" / "test")


@pytest.fixture
def messages() -> tuple[list[str], Callable[[str], None]]:
    """A list of messages, and the `log` callback that fills it."""
    lines: list[str] = []
    return lines, lines.append
