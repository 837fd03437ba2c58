"""The frame of every rule's script: its log, progress in rows per second, and the cause of a failure as the last line."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from zmill.catalog.lock import hold
from zmill.redact import redact
from zmill.workflow import records
from zmill.workflow.gpus import VISIBLE

log = logging.getLogger("zmill")

CAUSE = ".cause"
"""Suffix of the file next to a log that keeps a permanent error."""

TEMPORARY = {
    *("BrokenExecutor", "KilledWorker", "CommClosedError", "CancelledError"),  # a child process was killed
    *("OutOfMemoryError", "AcceleratorError"),  # a GPU is full or failed
    *("RequestException", "Transient"),  # a service on the network
}
"""Names of library errors (and their subclasses) that may be temporary; importing the libraries here would cost every job seconds."""
WRONG_PATH = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)


class SnakemakeJob(Protocol):
    """The attributes of the object `snakemake` of a rule's script that `job` reads."""

    input: Sequence[str]
    output: Sequence[str]
    params: Mapping[str, Any]
    log: Sequence[str]
    resources: Mapping[str, Any]


@contextmanager
def job(snakemake: SnakemakeJob) -> Iterator[logging.Logger]:
    """Log to the rule's log and to standard error while the block runs.

    An exception is logged with its traceback and then, as the last line, its message alone; the process ends with
    status 1. If the error is permanent (`is_permanent`), these lines are also kept in a file next to the log: Snakemake
    retries every failed job, and later attempts of the same run then end at once with the same lines. A new run tries
    again (`forget`).

    If the same job of an earlier run is still running, because only its Snakemake was killed, the job waits for it.

    A record of the inputs and settings is written once the outputs are complete (`zmill.workflow.records`).

    The number of the attempt, from 1, is the resource `attempt`, which the profiles set.
    """
    path = Path(snakemake.log[0])
    attempt = snakemake.resources.get("attempt", 1)
    cause = path.with_suffix(CAUSE)
    alone = hold(path.with_name(f".{path.stem}.lock"), _waiting)
    layout = _Redacted("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    handlers: list[logging.Handler] = [
        logging.FileHandler(path, mode="w", encoding="utf-8"),
        logging.StreamHandler(sys.stderr),
    ]
    for handler in handlers:
        handler.setFormatter(layout)
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    started = time.monotonic()
    try:
        if attempt > 1 and cause.exists():
            log.error("attempt %d is not made: the one before it ended with a permanent error", attempt)
            for line in json.loads(cause.read_text(encoding="utf-8")):
                log.error("%s", line)
            raise SystemExit(1)
        cause.unlink(missing_ok=True)
        given = os.environ.get(VISIBLE)
        log.info("on %s%s", socket.gethostname(), f", GPU {given}" if given else "")
        with _log_termination(), _recorded(snakemake):
            yield log
        log.info("finished in %.1f s", time.monotonic() - started)
    except Exception as error:
        lines = [redact(text) for text in (traceback.format_exc().rstrip(), f"{type(error).__name__}: {error}")]
        for line in lines:
            log.error("%s", line)
        if is_permanent(error):
            temporary = cause.with_suffix(".tmp")
            temporary.write_text(json.dumps(lines), encoding="utf-8")
            temporary.replace(cause)
        raise SystemExit(1) from None
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
        alone.close()


@contextmanager
def _recorded(snakemake: SnakemakeJob) -> Iterator[None]:
    """Remove the record of the job while the block runs, and write a new one if it ends without an exception."""
    outputs = list(map(str, snakemake.output))
    home = records.Home.of(str(snakemake.log[0]), outputs) if outputs else None
    if home is None or not records.script_of(home.rule).is_file():  # it has no output, or is not a rule of zmill
        yield
        return
    records.remove(home)
    record = records.make(home, snakemake.input, dict(snakemake.params.items()))
    yield
    records.write(home, record)


class _Redacted(logging.Formatter):
    """Removes passwords and tokens of URLs from log lines."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _waiting(holder: str) -> None:
    sys.stderr.write(f"waiting for this job of an earlier run, which goes on (process {holder})\n")


def is_permanent(error: BaseException) -> bool:
    """Whether an error is caused by the data, the settings or the program, and not by the machine.

    Errors of memory, child processes, GPUs, disks and networks may be temporary. An error with a cause is classified by its
    cause.
    """
    if error.__cause__ is not None and not is_permanent(error.__cause__):
        return False
    if TEMPORARY & {cls.__name__ for cls in type(error).__mro__}:
        return False
    if isinstance(error, MemoryError | TimeoutError | ConnectionError):
        return False
    # Libraries raise OSError without a number for broken files.
    return isinstance(error, WRONG_PATH) or not (isinstance(error, OSError) and error.errno is not None)


def failed(logs: str | Path) -> dict[Path, str]:
    """Logs under `logs` of the jobs that ended with a permanent error, and their messages."""
    return {
        cause.with_suffix(".log"): json.loads(cause.read_text(encoding="utf-8"))[-1]
        for cause in sorted(Path(logs).rglob(f"*{CAUSE}"))
    }


def forget(logs: str | Path) -> None:
    """Forget the permanent errors of earlier runs, so that a new run tries these jobs again."""
    for cause in Path(logs).rglob(f"*{CAUSE}"):
        cause.unlink(missing_ok=True)


@contextmanager
def _log_termination() -> Iterator[None]:
    """Log SIGTERM as the last line of the log of a job that it ends."""
    me = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() == me:  # a forked child is ended by its parent
            log.error("ended by signal %d: time limit, pre-emption or scancel", number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Progress:
    """Rows done, rows per second and time left, logged at most every `every` seconds.

    Parameters
    ----------
    what : name of the task in the log.
    total : number of rows, or None if unknown.
    """

    def __init__(self, what: str, total: int | None = None, every: float = 5.0) -> None:
        self.what, self.total, self.every = what, total, every
        self.done = 0
        self._start = self._last = time.monotonic()

    def add(self, rows: int) -> None:
        """Count `rows` more as done."""
        self.done += rows
        now = time.monotonic()
        if now - self._last >= self.every:
            self._last = now
            self._log(now)

    def end(self) -> None:
        """Log the total."""
        self._log(time.monotonic())

    def _log(self, now: float) -> None:
        seconds = max(now - self._start, 1e-9)
        rate = self.done / seconds
        text = f"{self.what}: {self.done:,} rows, {rate:,.0f} rows/s"
        if self.total:
            left = max(self.total - self.done, 0) / rate if rate else float("inf")
            text += f", {100 * self.done / self.total:.0f} %, {left:.0f} s left"
        log.info("%s", text)
