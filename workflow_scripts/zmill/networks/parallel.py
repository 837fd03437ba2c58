"""Training and asking in lanes: threads that each do a large part of the work on their own and rarely wait for one another.

Inside a lane torch computes on one thread. Threads that share every operation would meet thousands of times a second, and a
processor that is busy with other work makes all of them wait for the one that it has put aside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

CPU_LANES = 2
"""Lanes on a CPU, whatever number of cores a job may use: the sums of a training, and so its last bits, depend on it."""

Part = TypeVar("Part")
Result = TypeVar("Result")


class Lanes:
    """A number of lanes, to give parts of the work to.

    count : of lanes; 1: the calling thread does all of it.
    """

    def __init__(self, pool: ThreadPoolExecutor | None, count: int) -> None:
        self._pool, self.count = pool, count

    def map(self, work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """Results of `work` for each of the parts, in their order.

        What a thread is set to (inference mode, autocast) `work` has to set itself.
        """
        if self._pool is None or len(parts) < 2:
            return [work(part) for part in parts]
        return list(self._pool.map(work, parts))


@contextmanager
def lanes(device: torch.device, most: int = CPU_LANES) -> Iterator[Lanes]:
    """Lanes for work on a device: on a CPU at most `most`, with torch on one thread in each of them until the block ends; on a
    GPU, which is one queue of large operations, a single one."""
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
