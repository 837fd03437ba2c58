"""Trends of errors, against what is put in."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from zmill.report.binned import trend


def test_a_known_bias_and_scatter_are_found() -> None:
    random = np.random.default_rng(2)
    z = random.uniform(0.1, 1.0, 20_000)
    dz = 0.02 * z + random.normal(0, 0.03 * z)
    found = trend(z, z + dz * (1 + z), z, random.integers(0, 200, len(z)))
    assert found is not None and len(found.center) == 10
    for metric, truth in {"bias": 0.02 * found.center, "sigma_mad": 0.03 * found.center}.items():
        width = (found.high[metric] - found.low[metric]) / 2
        assert np.all(np.abs(found.values[metric] - truth) < 5 * width + 1e-3)
        assert np.all(width > 0)


def test_too_few_rows_give_no_trend() -> None:
    z = np.linspace(0.1, 1, 39)
    assert trend(z, z, z, np.arange(39)) is None
    assert trend(np.full(100, np.nan), np.ones(100), np.ones(100), np.arange(100)) is None


@settings(max_examples=20, deadline=None)
@given(st.integers(40, 300), st.integers(0, 2**31))
def test_bins_hold_every_finite_row_once_in_order(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, z = random.normal(size=n), random.uniform(0, 1, n)
    found = trend(x, z, z, np.arange(n), bins=4)
    assert found is not None
    assert np.all(np.diff(found.center) > 0)
    assert np.all(found.values["bias"] == 0) and np.all(found.values["eta_015"] == 0)
