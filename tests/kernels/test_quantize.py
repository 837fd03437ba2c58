"""Quantized numbers are the nearest steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmill.kernels.quantize import quantize


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(0,), (1,), (0, 4), (1, 1), (3, 5), (4, 4), (17, 3), (100, 64)]),
    step=st.floats(1e-3, 1e3),
    zero=st.integers(0, 255),
)
def test_it_is_the_definition(seed: int, shape: tuple[int, ...], step: float, zero: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.uniform(-400, 400, shape) * step).astype(np.float32)
    exact = x.astype(np.float64) / step + zero + 0.5
    found = quantize(x, step, zero)
    assert found.shape == shape and found.dtype == np.uint8
    clear = np.abs(exact - np.round(exact)) > 1e-3
    np.testing.assert_array_equal(found[clear], np.clip(exact, 0, 255)[clear].astype(np.uint8))


def test_what_is_not_finite_is_at_an_end() -> None:
    x = np.array([np.nan, -np.inf, np.inf, -3e38, 3e38], np.float32)
    assert quantize(x, 0.1, 3).tolist() == [0, 0, 255, 0, 255]


def test_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x: found float64 .* expected float32"):
        quantize(np.zeros(20), 0.1, 3)  # type: ignore[arg-type]
