"""A small demo sky, simulated once."""

from __future__ import annotations

import pytest

from zmill.simulate import demo

AREA = 0.08


@pytest.fixture(scope="session")
def small_sky() -> demo.Demo:
    """About 7,000 objects on 0.08 square degrees."""
    return demo.simulate(seed=3, area=AREA)
