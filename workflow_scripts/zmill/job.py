"""What every rule's script shares: a log of its own, progress in rows per second, and a last line that is the cause."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("zmill")


CHILD_LOST = {"BrokenExecutor", "KilledWorker", "CommClosedError"}
"""What parents of processes raise where a child was killed, as those that ran out of memory are."""
DEVICE = {"OutOfMemoryError", "AcceleratorError"}
"""What torch raises where a GPU is full or failed."""
WRONG_PATH = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)


@contextmanager
def job(path: str | Path, attempt: int = 1) -> Iterator[logging.Logger]:
    """Log to `path` and to standard error while the block runs.

    An exception is logged with its traceback and then, as the last line, its message alone; the process ends with
    status 1. Where the exception would come again (`same_again`), it is also kept beside the log: a later attempt of
    the same run then ends at once with the same last line, as Snakemake itself submits whatever failed again.

    Parameters
    ----------
    attempt : how often Snakemake has started this job in this run; 1 the first time.
    """
    path = Path(path)
    cause = path.with_suffix(".cause")
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
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
            log.error("%s", cause.read_text(encoding="utf-8"))
            raise SystemExit(1)
        cause.unlink(missing_ok=True)
        with _last_word():
            yield log
        log.info("finished in %.1f s", time.monotonic() - started)
    except Exception as error:
        log.error("%s", traceback.format_exc().rstrip())
        message = f"{type(error).__name__}: {error}"
        if same_again(error):
            cause.write_text(message, encoding="utf-8")
        log.error("%s", message)
        raise SystemExit(1) from None
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


def same_again(error: BaseException) -> bool:
    """Whether an error is of the data, the settings or the program, and not of the machine that the job ran on.

    Memory, a lost child process, a GPU, a disk or a network may be better at the next attempt; what such an error led
    to is judged by it.
    """
    if error.__cause__ is not None and not same_again(error.__cause__):
        return False
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & (CHILD_LOST | DEVICE) or isinstance(error, MemoryError):
        return False
    # Libraries raise OSError without a number for broken files; requests has no number for a broken connection.
    of_system = isinstance(error, OSError) and (error.errno is not None or "RequestException" in names)
    return not of_system or isinstance(error, WRONG_PATH)


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
