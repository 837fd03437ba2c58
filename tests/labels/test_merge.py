"""Merging of entries: by quality, then error, then priority; conflicts set aside; nothing lost."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from zmill.labels.merge import groups, resolve

ARCSEC = 1 / 3600


def merge(group, z, quality=None, error=None, priority=None, conflict=0.005):
    n = len(group)
    return resolve(
        np.array(group, np.int64),
        np.array(z, float),
        np.array(quality or [4] * n, np.int8),
        np.array(error or [np.nan] * n, np.float32),
        np.array(priority or [0] * n, np.int64),
        conflict,
    )


def test_groups_are_what_the_radius_connects_at_ra_zero_and_the_pole() -> None:
    ra = np.array([359.99999, 0.00001, 10, 10, 10, 50, 230])
    dec = np.array([0, 0, 0, 0.4 * ARCSEC, 0.8 * ARCSEC, 90 - 0.1 * ARCSEC, 90 - 0.1 * ARCSEC])
    group = groups(ra, dec, 0.5)
    assert group[0] == group[1]
    assert group[2] == group[3] == group[4]
    assert group[5] == group[6]
    assert len(set(group.tolist())) == 3
    assert len(groups(np.empty(0), np.empty(0), 0.5)) == 0


def test_quality_then_error_then_priority_then_order() -> None:
    assert merge([0, 0], [0.5, 0.5], quality=[3, 4], error=[1e-5, 1e-3]).chosen.tolist() == [1]
    assert merge([0, 0], [0.5, 0.5], error=[1e-3, 1e-4]).chosen.tolist() == [1]
    assert merge([0, 0], [0.5, 0.5], error=[np.nan, 1e-2]).chosen.tolist() == [1]
    assert merge([0, 0], [0.5, 0.5], priority=[1, 0]).chosen.tolist() == [1]
    assert merge([0, 0], [0.5, 0.5]).chosen.tolist() == [0]


def test_conflicts_set_the_whole_object_aside() -> None:
    merged = merge([0, 0, 1, 1, 1], [0.5, 0.5074, 1.0, 1.011, 1.0])
    assert merged.conflict.tolist() == [False, False, True, True, True]
    assert merged.chosen.tolist() == [0] and merged.entries.tolist() == [2]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.sampled_from([0.1, 0.1001, 0.5]), st.integers(0, 4)), max_size=40))
def test_every_entry_is_merged_or_in_conflict(rows) -> None:
    group = np.unique([row[0] for row in rows], return_inverse=True)[1] if rows else []
    merged = merge(list(group), [row[1] for row in rows], [row[2] for row in rows])
    assert merged.entries.sum() + merged.conflict.sum() == len(rows)
    assert not merged.conflict[merged.chosen].any()
    for chosen in merged.chosen:
        mine = [rows[i][2] for i in range(len(rows)) if group[i] == group[chosen]]
        assert rows[chosen][2] == max(mine)
