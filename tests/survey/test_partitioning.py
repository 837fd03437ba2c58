"""Partitions hold every row once and none too many."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zmill.survey.partitioning import choose, histogram, merge, partition_numbers

ORDER = 4


@given(
    st.lists(st.lists(st.integers(0, 12 * 4**ORDER - 1), max_size=60), min_size=1, max_size=4),
    st.integers(1, 40),
)
def test_partitions_cover_the_rows(groups: list[list[int]], max_rows: int) -> None:
    counted = merge([histogram(np.array(group, np.int64)) for group in groups])
    pixels = np.array([pixel for group in groups for pixel in group], np.int64)
    assert counted[1].sum() == len(pixels)
    chosen = choose(counted, ORDER, max_rows)
    intervals = [partition.interval() for partition in chosen]
    assert all(stop <= start for (_, stop), (start, _) in pairwise(intervals))
    if not chosen:
        assert not len(pixels)
        return
    rows = pixels << 2 * (29 - ORDER)
    numbers = partition_numbers(rows, np.array([start for start, _ in intervals]))
    for row, number in zip(rows.tolist(), numbers.tolist(), strict=True):
        assert intervals[number][0] <= row < intervals[number][1]
    for partition, count in zip(chosen, np.bincount(numbers, minlength=len(chosen)), strict=True):
        assert count > 0 and (count <= max_rows or partition.order == ORDER)
        if partition.order > 0:  # its parent would have been too full: no partition is smaller than it must be
            parent = partition.pixel >> 2
            assert np.sum(pixels >> 2 * (ORDER - partition.order + 1) == parent) > max_rows
