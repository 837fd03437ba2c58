"""Rows taken some at a time."""

from __future__ import annotations

import torch

from zmill.chunks import cache_sized_chunks, evenly, row_chunks


def test_slices_cover_every_row_once() -> None:
    assert [list(range(10))[rows] for rows in row_chunks(10, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(row_chunks(0, 4)) == []


def test_a_processor_takes_what_its_cache_holds_and_another_device_takes_all() -> None:
    assert list(cache_sized_chunks(10, 4, torch.device("cpu"))) == list(row_chunks(10, 4))
    assert list(cache_sized_chunks(3, 4, torch.device("cpu"))) == [slice(0, 3)]
    assert list(cache_sized_chunks(10, 4, torch.device("cuda"))) == [slice(0, 10)]


def test_without_rows_there_is_still_a_piece() -> None:
    """What is put together of all pieces has its columns then."""
    assert [list(range(5))[rows] for rows in cache_sized_chunks(0, 4, torch.device("cpu"))] == [[]]


def test_some_rows_are_spread_from_the_first_to_the_last() -> None:
    assert [evenly(*given).tolist() for given in ((10, 3), (3, 10), (0, 5))] == [[0, 4, 9], [0, 1, 2], []]
