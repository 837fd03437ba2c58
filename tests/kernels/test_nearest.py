"""The compiled comparison of distances gives what its definition gives, of any rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from zmill.kernels.nearest import farther_than

Floats = NDArray[np.float32]


def distance2(values: Floats, fill: Floats, scale: Floats, centers: Floats) -> NDArray[np.float64]:
    """(n,) squared distance to the nearest center: the definition, in float64."""
    values, fill, scale, points = (array.astype(np.float64) for array in (values, fill, scale, -centers[:-1].T / 2))
    white = np.where(np.isfinite(values), values - fill, 0) @ scale
    found: NDArray[np.float64] = ((white[:, None] - points) ** 2).sum(2).min(1)
    return found


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.sampled_from([0, 1, 15, 16, 17, 100]),
    width=st.integers(1, 7),
    size=st.integers(1, 7),
    count=st.sampled_from([1, 2, 40]),
)
def test_it_is_the_definition(seed: int, rows: int, width: int, size: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    size = min(size, width)
    features = rng.normal(22, 2, (rows, width)).astype(np.float32)
    for value in (np.nan, np.inf, -np.inf):
        features[rng.random((rows, width)) < 0.1] = value
    fill = np.append(np.float32(22), np.full(width - 1, 21)).astype(np.float32)
    scale = rng.normal(0, 1, (width, size)).astype(np.float32)
    points = rng.normal(0, 2, (count, size))
    centers = np.vstack([-2 * points.T, (points**2).sum(1)]).astype(np.float32)
    expected = distance2(features, fill, scale, centers)
    threshold = float(np.median(expected)) if rows else 1.0
    found = farther_than(threshold, features, fill, scale, centers)
    assert found.shape == (rows,) and found.dtype == np.bool_
    rounding = 1e-5 * (1 + (points**2).sum(1).max() + np.abs(expected).max(initial=0))
    clear = np.abs(expected - threshold) > rounding
    np.testing.assert_array_equal(found[clear], expected[clear] > threshold)
    assert rows < 100 or clear.mean() > 0.4  # rows without any finite value are all equally far


def test_arrays_of_another_type_are_refused() -> None:
    features, fill, scale = np.zeros((20, 3)), np.zeros(3, np.float32), np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match=r"features: found float64 .* expected float32"):
        farther_than(1.0, features, fill, scale, np.zeros((4, 5), np.float32))  # type: ignore[arg-type]
