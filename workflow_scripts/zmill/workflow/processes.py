"""Tasks side by side in processes of their own.

The processes hear of their tasks by pipes that no other process has: no port is opened, so that no other user of the machine
can give them work. A program that uses them guards its own work by `if __name__ == "__main__"`: they import it again.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pyarrow as pa

Run = Callable[[Sequence[tuple[Any, ...]]], Iterator[tuple[int, Any]]]
"""Runs tasks `(function, *arguments)` and gives (place of the task, its result) as they end; raises what a task raises."""


@contextmanager
def workers(number: int) -> Iterator[Run]:
    """As `processes`; one worker is this process itself."""
    if number == 1:
        yield lambda tasks: ((place, task[0](*task[1:])) for place, task in enumerate(tasks))
        return
    with processes(number) as run:
        yield run


@contextmanager
def processes(number: int) -> Iterator[Run]:
    """So many processes, each with one thread of Arrow, gone when the block ends."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(number, mp_context=context, initializer=_one_thread) as pool:

        def run(tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
            waiting = iter(enumerate(tasks))
            running = {pool.submit(*task): place for place, task in islice(waiting, 2 * number)}
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
                    for place, task in islice(waiting, 1):
                        running[pool.submit(*task)] = place

        try:
            yield run
        finally:
            pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
