"""What every rule's script shares: a log of its own, progress in rows per second, and a last line that is the cause."""

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
"""Suffix of the file beside a log that keeps an error which would come again."""

PASSING = {
    *("BrokenExecutor", "KilledWorker", "CommClosedError", "CancelledError"),  # a child process was killed
    *("OutOfMemoryError", "AcceleratorError"),  # a GPU is full or failed
    *("RequestException", "Transient"),  # a service on the network
}
"""Names of errors of libraries, and of those derived from them, that may not come again; imported here they would cost
every job seconds."""
WRONG_PATH = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)


class Asked(Protocol):
    """What `job` reads of the object `snakemake` that a rule's script is given."""

    input: Sequence[str]
    output: Sequence[str]
    params: Mapping[str, Any]
    log: Sequence[str]
    resources: Mapping[str, Any]


@contextmanager
def job(snakemake: Asked) -> Iterator[logging.Logger]:
    """Log to the rule's log and to standard error while the block runs.

    An exception is logged with its traceback and then, as the last line, its message alone; the process ends with
    status 1. Where the exception would come again (`same_again`), what was logged of it is also kept beside the log: as
    Snakemake itself submits whatever failed again, later attempts of the same run end at once with the same lines. A new
    run asks afresh (`forget`).

    The same job of an earlier run, which may go on after its Snakemake was killed, is waited for.

    What the job makes its outputs from is noted once they are complete (`zmill.workflow.records`).

    The attempt, 1 the first time, is read from the resource of that name, which the profiles set.
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
            log.error("attempt %d is not made: the one before it ended with an error that would come again", attempt)
            for line in json.loads(cause.read_text(encoding="utf-8")):
                log.error("%s", line)
            raise SystemExit(1)
        cause.unlink(missing_ok=True)
        given = os.environ.get(VISIBLE)
        log.info("on %s%s", socket.gethostname(), f", GPU {given}" if given else "")
        with _last_word(), _recorded(snakemake):
            yield log
        log.info("finished in %.1f s", time.monotonic() - started)
    except Exception as error:
        said = [redact(text) for text in (traceback.format_exc().rstrip(), f"{type(error).__name__}: {error}")]
        for line in said:
            log.error("%s", line)
        if same_again(error):
            temporary = cause.with_suffix(".tmp")
            temporary.write_text(json.dumps(said), encoding="utf-8")
            temporary.replace(cause)
        raise SystemExit(1) from None
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
        alone.close()


@contextmanager
def _recorded(snakemake: Asked) -> Iterator[None]:
    """Remove the job's record while the block runs, and write it anew where the block ends well."""
    outputs = list(map(str, snakemake.output))
    home = records.Home.of(str(snakemake.log[0]), outputs) if outputs else None
    if home is None or not records.script_of(home.rule).is_file():  # it makes nothing, or is no rule of zmill
        yield
        return
    records.remove(home)
    record = records.make(home, snakemake.input, dict(snakemake.params.items()))
    yield
    records.write(home, record)


class _Redacted(logging.Formatter):
    """Lines without the passwords and tokens of addresses."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _waiting(holder: str) -> None:
    sys.stderr.write(f"waiting for this job of an earlier run, which goes on (process {holder})\n")


def same_again(error: BaseException) -> bool:
    """Whether an error is of the data, the settings or the program, and not of the machine that the job ran on.

    Memory, a lost child process, a GPU, a disk or a network may be better at the next attempt; what such an error led
    to is judged by it.
    """
    if error.__cause__ is not None and not same_again(error.__cause__):
        return False
    if PASSING & {cls.__name__ for cls in type(error).__mro__}:
        return False
    if isinstance(error, MemoryError | TimeoutError | ConnectionError):
        return False
    # Libraries raise OSError without a number for broken files.
    return isinstance(error, WRONG_PATH) or not (isinstance(error, OSError) and error.errno is not None)


def failed(logs: str | Path) -> dict[Path, str]:
    """Logs under `logs` of the jobs that ended with an error that would come again, and their messages."""
    return {
        cause.with_suffix(".log"): json.loads(cause.read_text(encoding="utf-8"))[-1]
        for cause in sorted(Path(logs).rglob(f"*{CAUSE}"))
    }


def forget(logs: str | Path) -> None:
    """At the beginning of a run: what failed in an earlier one may be tried again."""
    for cause in Path(logs).rglob(f"*{CAUSE}"):
        cause.unlink(missing_ok=True)


@contextmanager
def _last_word() -> Iterator[None]:
    """Let a job that is told to end, by SIGTERM, say so as the last line of its log."""
    me = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() == me:  # a forked child is ended by its parent
            log.error("told to end by signal %d: time limit, pre-emption or scancel", number)
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
    what : what is being done, for the reader of the log.
    total : rows there are, or None where unknown.
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
            self._say(now)

    def end(self) -> None:
        """Log the whole."""
        self._say(time.monotonic())

    def _say(self, now: float) -> None:
        seconds = max(now - self._start, 1e-9)
        rate = self.done / seconds
        text = f"{self.what}: {self.done:,} rows, {rate:,.0f} rows/s"
        if self.total:
            left = max(self.total - self.done, 0) / rate if rate else float("inf")
            text += f", {100 * self.done / self.total:.0f} %, {left:.0f} s left"
        log.info("%s", text)
