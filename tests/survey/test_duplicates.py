"""Repeated identifiers are found whatever the range, and a shared hash is no repetition."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmill.survey import duplicates
from zmill.survey.duplicates import Owners, contains_any, hashes, ranges, repeated


def test_ranges_cover_all_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "RANGE_HASHES", 10)
    found = list(ranges(95))
    assert len(found) == 10 and found[0][0] == 0 and found[-1][1] == 2**64 - 1
    assert all(last + 1 == first for (_, last), (first, _) in pairwise(found))


@pytest.mark.parametrize("text", [False, True])
def test_repeated_over_files_and_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bool) -> None:
    monkeypatch.setattr(duplicates, "RANGE_HASHES", 7)
    pieces = [[1, 2, 3, -4], [5, 6, 3], [], [7, 7, -4, 2**62]]
    arrays = [pa.array([f"o{v}" for v in p] if text else p, pa.string() if text else pa.int64()) for p in pieces]
    files = []
    for number, ids in enumerate(arrays):
        files.append(tmp_path / f"{number}.npy")
        np.save(files[-1], np.sort(hashes(ids)))
    found = np.concatenate([repeated(files, first, last) for first, last in ranges(11)])
    twice = pa.array(["o3", "o-4", "o7"] if text else [3, -4, 7])
    assert set(found.tolist()) == set(hashes(twice).tolist())
    assert [contains_any(file, np.sort(found)) for file in files] == [True, True, False, True]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=50))
def test_different_integers_never_share_a_hash(values: list[int]) -> None:
    assert len(set(hashes(pa.array(values, pa.int64())).tolist())) == len(values)


def test_first_occurrence_is_kept() -> None:
    owners = Owners({"a": 0, "b": 1})
    seen: set[int | str] = set()
    assert owners.later(pa.array(["b", "a", "c", "a"]), 0, seen).tolist() == [True, False, False, True]
    assert owners.later(pa.array(["b", "a"]), 1, set()).tolist() == [False, True]
