"""Queues between threads: order, bounds, and that no side outlives a failure of the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

import pytest

from zmill.predict.flow import Stopped, ahead, behind, late


def noted(numbers: Iterable[int], drawn: list[int]) -> Iterator[int]:
    """The numbers, each put down in `drawn` when it is drawn."""
    for number in numbers:
        drawn.append(number)
        yield number


def test_ahead_keeps_order_and_never_draws_more_than_its_depth() -> None:
    drawn: list[int] = []

    taken = []
    with ahead(noted(range(50), drawn), depth=3) as stream:
        for number in stream:
            time.sleep(0.001)
            taken.append(number)
            # 3 that wait, and one in the hand of the thread that draws
            assert len(drawn) <= len(taken) + 3 + 1
    assert taken == list(range(50))


def test_ahead_raises_where_the_item_would_have_come() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    taken = []
    with pytest.raises(OSError, match="gone"), ahead(items(), depth=5) as stream:
        for number in stream:
            taken.append(number)
    assert taken == [1]


def test_leaving_early_ends_the_thread_that_reads() -> None:
    before = threading.active_count()
    with ahead(iter(range(1000)), depth=1) as stream:
        assert next(stream) == 0
    assert threading.active_count() == before


@pytest.mark.parametrize("by", [0, 1, 3, 20])
def test_late_gives_every_item_in_order_once_others_were_drawn(by: int) -> None:
    drawn: list[int] = []

    taken = []
    for number in late(noted(range(10), drawn), by):
        taken.append(number)
        assert len(drawn) == min(number + by + 1, 10)
    assert taken == list(range(10))


def test_behind_gets_everything_in_order_before_the_block_ends() -> None:
    got: list[int] = []

    def consume(items: Iterator[int]) -> None:
        for item in items:
            time.sleep(0.001)
            got.append(item)

    with behind(consume, depth=2) as send:
        for number in range(30):
            send(number)
    assert got == list(range(30))


@pytest.mark.parametrize("fail_at", [0, 3, 9])
def test_a_failing_consumer_is_heard_and_does_not_block_the_sender(fail_at: int) -> None:
    def consume(items: Iterator[int]) -> None:
        for item in items:
            if item == fail_at:
                raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), behind(consume, depth=2) as send:
        for number in range(10):
            send(number)


def test_a_failing_block_stops_the_consumer_before_it_ends_well() -> None:
    seen: list[str] = []

    def consume(items: Iterator[int]) -> None:
        try:
            for _ in items:
                pass
            seen.append("whole")
        except Stopped:
            seen.append("stopped")
            raise

    with pytest.raises(ValueError, match="model"), behind(consume, depth=2) as send:
        send(1)
        raise ValueError("the model failed")
    assert seen == ["stopped"]
