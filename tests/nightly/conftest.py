"""One first night that the tests of nights start from."""

from __future__ import annotations

from pathlib import Path

import night_sky
import pytest
from night_sky import Sky


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Sky:
    """The first night."""
    return night_sky.first_night(tmp_path_factory)


@pytest.fixture
def sky(base: Sky, tmp_path: Path) -> Sky:
    """A copy of it that a test may change."""
    return night_sky.copy(base, tmp_path / "sky")
