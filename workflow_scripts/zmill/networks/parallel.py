"""Lanes: threads that each do a large part of the work of training or inference and rarely synchronize.

Within a lane torch uses one thread. Threads that share every operation synchronize thousands of times a second, and on a busy
processor all of them wait whenever one is descheduled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

CPU_LANES = 2
"""Number of lanes on a CPU, independent of the cores of the job, because the rounding of sums in a training depends on it."""

Part = TypeVar("Part")
Result = TypeVar("Result")


class Lanes:
    """A pool of lanes, among which parts of the work are distributed.

    count : number of lanes; 1: the calling thread does all of the work.
    """

    def __init__(self, pool: ThreadPoolExecutor | None, count: int) -> None:
        self._pool, self.count = pool, count

    def map(self, work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """Results of `work` for each of the parts, in their order.

        `work` must set thread-local modes (inference mode, autocast) itself.
        """
        if self._pool is None or len(parts) < 2:
            return [work(part) for part in parts]
        return list(self._pool.map(work, parts))


@contextmanager
def lanes(device: torch.device, most: int = CPU_LANES) -> Iterator[Lanes]:
    """Lanes for work on a device, until the block ends.

    On a CPU there are at most `most`, each with one torch thread. On a GPU, which runs one queue of large operations, there is one.
    """
    if device.type != "cpu":
        yield Lanes(None, 1)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if most == 1:
            yield Lanes(None, 1)
            return
        with ThreadPoolExecutor(most, "lane", torch.set_num_threads, (1,)) as pool:
            yield Lanes(pool, most)
    finally:
        torch.set_num_threads(before)
