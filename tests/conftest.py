"""Fixtures that all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # test processes run side by side, and what they compute is small

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def tiny_numbers() -> Iterator[None]:
    """Whatever a test has chosen to compute on, later tests have numbers below 1e-38 again."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real catalogues; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("ZMILL_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set ZMILL_TEST_DATA to the folder that has them")
    return folder
