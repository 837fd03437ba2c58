"""Parallel tasks in worker processes.

The workers receive their tasks through private pipes. No port is opened, so that no other user of the machine can send them
tasks. A program that uses workers must guard its main code by `if __name__ == "__main__"`, because they import it.
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
"""Runs tasks `(function, *arguments)` and yields (index of the task, its result) as they end; raises the exception of a task."""


@contextmanager
def workers(number: int) -> Iterator[Run]:
    """Like `processes`, but a single worker is the calling process itself."""
    if number == 1:
        yield lambda tasks: ((index, task[0](*task[1:])) for index, task in enumerate(tasks))
        return
    with processes(number) as run:
        yield run


@contextmanager
def processes(number: int) -> Iterator[Run]:
    """A pool of processes, each with one Arrow thread, until the block ends."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(number, mp_context=context, initializer=_one_thread) as pool:

        def run(tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
            waiting = iter(enumerate(tasks))
            running = {pool.submit(*task): index for index, task in islice(waiting, 2 * number)}
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
                    for index, task in islice(waiting, 1):
                        running[pool.submit(*task)] = index

        try:
            yield run
        finally:
            pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
