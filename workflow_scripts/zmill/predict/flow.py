"""Bounded queues between threads, for reading ahead and writing behind."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The other side of a channel has left."""


class Channel(Generic[T]):
    """A bounded queue with one sender and one receiver; either side may leave."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self._abandoned = False

    def put(self, item: T) -> None:
        """Wait for room and add an item; raises `Closed` once the receiver has left."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._depth or self._abandoned)
            if self._abandoned:
                raise Closed
            self._items.append(item)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """End the channel; `error` is raised at the receiver after the items before it."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def abandon(self) -> None:
        """Close the receiving side: waiting items are dropped and the sender's next `put` raises `Closed`."""
        with self._changed:
            self._abandoned = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended)
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


@contextmanager
def ahead(items: Iterable[T], depth: int) -> Iterator[Iterator[T]]:
    """Draw `items` in a separate thread, at most `depth` items ahead of the reader.

    An exception in `items` is raised where it would have been drawn. Leaving the block stops the thread.
    """
    channel: Channel[T] = Channel(depth)

    def draw() -> None:
        try:
            for item in items:
                channel.put(item)
        except Closed:
            return
        except BaseException as error:
            channel.end(error)
        else:
            channel.end()

    thread = threading.Thread(target=draw, name="read-ahead", daemon=True)
    thread.start()
    try:
        yield iter(channel)
    finally:
        channel.abandon()
        thread.join()


def late(items: Iterable[T], by: int) -> Iterator[T]:
    """The items, each delayed until `by` more have been drawn."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > by:
            yield waiting.popleft()
    yield from waiting


class Stopped(Exception):
    """Raised in a consumer when the main work has failed: it must remove partial output."""


@contextmanager
def behind(consume: Callable[[Iterator[T]], None], depth: int) -> Iterator[Callable[[T], None]]:
    """Run `consume` in a separate thread, at most `depth` items behind; yields the function that sends an item.

    An exception in `consume` is raised at the next send or at the end of the block. When the block itself fails,
    `consume` gets `Stopped` instead of its next item.
    """
    channel: Channel[T] = Channel(depth)
    failure: list[BaseException] = []

    def work() -> None:
        try:
            consume(iter(channel))
        except BaseException as error:
            failure.append(error)
        finally:
            channel.abandon()

    thread = threading.Thread(target=work, name="write-behind", daemon=True)

    def send(item: T) -> None:
        try:
            channel.put(item)
        except Closed:
            thread.join()
            raise failure[0] if failure else Closed("the consumer ended before the items did") from None

    thread.start()
    try:
        yield send
    except BaseException:
        channel.end(Stopped())
        thread.join()
        raise
    channel.end()
    thread.join()
    if failure:
        raise failure[0]
