"""The shard engine: it predicts partitions of a clean catalogue and writes the same partitions of each output catalogue.

Three steps run in parallel: one thread reads record batches ahead, others run the inference, and one thread per output
catalogue writes. The next batches are begun before one has ended, so that no thread of the inference waits for another.
The queues between the steps are a few batches long, so that memory depends only on `batch_rows`.
On a GPU several such lanes run in parallel, each on its own partitions.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from zmill.catalog import hats
from zmill.catalog.hats import CatalogError, Partition
from zmill.predict import read
from zmill.predict.flow import ahead, behind, late
from zmill.predict.read import Broken, Event
from zmill.predict.write import Output
from zmill.workflow.job import Progress, log

AHEAD = 2
"""Batches read before they are needed."""
BEGUN = 3
"""Batches that the inference has begun and not finished: it may use a thread for each."""
BEHIND = 2
"""Computed batches that wait to be written, per output catalogue."""

Computed = tuple[pa.RecordBatch, ...]
"""Of a batch of clean rows, one batch of the same rows for each output catalogue."""
Infer = Callable[[pa.RecordBatch], Callable[[], Computed]]
"""Begins to compute a batch of clean rows; the returned function waits for the result."""


class PredictError(Exception):
    """Redshifts could not be written for every row of a shard."""


@dataclass(frozen=True)
class Work:
    """Input and outputs of a shard's job.

    clean : the HATS catalogue to read.
    wanted, needed : columns to read where they exist; columns that must exist.
    outputs : the catalogues to write, in the order of the results of `infer`.
    """

    clean: Path
    wanted: list[str]
    needed: list[str]
    batch_rows: int
    infer: Infer
    outputs: tuple[Output, ...]

    def missing(self, partitions: Iterable[Partition]) -> list[Partition]:
        """The partitions that are not yet written from the present input, in their order."""

        def is_complete(partition: Partition) -> bool:
            try:
                input_hash = hats.sidecar(self.clean, partition)["xxh3_128"]
            except CatalogError:
                return False
            return all(output.is_complete(partition, input_hash) for output in self.outputs)

        return [partition for partition in partitions if not is_complete(partition)]


def run(work: Work, partitions: list[Partition], lanes: int = 1) -> None:
    """Write every missing partition; partitions with unusable input are skipped and reported at the end.

    Parameters
    ----------
    lanes : number of partitions processed in parallel.

    Raises
    ------
    PredictError
        At the end, with the names of the partitions that could not be read; or at once, where the disk is full.
    """
    missing = work.missing(partitions)
    if len(missing) < len(partitions):
        log.info("%d of %d partitions are written already", len(partitions) - len(missing), len(partitions))
    broken: list[Broken] = []
    progress = Progress("predict", _rows(work.clean, missing))
    todo = _Shared(missing)
    try:
        with ThreadPoolExecutor(lanes, "lane") as pool:
            for lane in [pool.submit(_lane, work, todo, progress, broken) for _ in range(lanes)]:
                lane.result()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise PredictError(_full(work, partitions, error)) from error
        raise
    progress.end()
    if broken:
        lines = "\n".join(f"  {one.why}" for one in sorted(broken, key=lambda one: one.partition.interval()))
        raise PredictError(
            f"{len(broken)} of {len(partitions)} partitions could not be used; the others are written:\n{lines}\n"
            "Run the stage that writes them again, then this one: it predicts only the missing partitions."
        )


class _Shared:
    """Partitions handed out one by one to several lanes, until one of them fails."""

    def __init__(self, partitions: list[Partition]) -> None:
        self._left = iter(partitions)
        self._lock = threading.Lock()
        self.stopped = False

    def __iter__(self) -> Iterator[Partition]:
        while True:
            with self._lock:
                partition = None if self.stopped else next(self._left, None)
            if partition is None:
                return
            yield partition


def _lane(work: Work, todo: _Shared, progress: Progress, broken: list[Broken]) -> None:
    try:
        with ExitStack() as stack:
            events = read.stream(work.clean, todo, work.wanted, work.needed, work.batch_rows)
            drawn = stack.enter_context(ahead(events, AHEAD))
            sends = [stack.enter_context(behind(output.consume, BEHIND)) for output in work.outputs]
            begun = ((event, _begin(work, event)) for event in drawn)
            for event, finish in late(begun, BEGUN):
                if isinstance(event, Broken):
                    log.error("%s", event.why)
                    broken.append(event)
                for send, item in zip(sends, finish(), strict=True):
                    send(item)
                if isinstance(event, pa.RecordBatch):
                    progress.add(event.num_rows)
    except BaseException:
        todo.stopped = True
        raise


def _begin(work: Work, event: Event) -> Callable[[], Sequence[Event]]:
    """Begin with a batch; the returned function waits for the item of each output. Other events are passed to all outputs."""
    if isinstance(event, pa.RecordBatch):
        return work.infer(event)
    return lambda: [event] * len(work.outputs)


def _rows(catalog: Path, partitions: list[Partition]) -> int:
    return sum(hats.sidecar(catalog, one)["rows"] for one in partitions if hats.is_complete(catalog, one))


def _full(work: Work, partitions: list[Partition], error: OSError) -> str:
    left = len(work.missing(partitions))
    where = work.outputs[0].catalog.parent
    return (
        f"{where}: the disk is full ({error.strerror}); {len(partitions) - left} of {len(partitions)} partitions are "
        "complete and none is partly written: free some space and run again"
    )
