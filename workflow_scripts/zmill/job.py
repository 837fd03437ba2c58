"""What every rule's script shares: a log of its own, progress in rows per second, and a last line that is the cause."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("zmill")


@contextmanager
def job(path: str | Path) -> Iterator[logging.Logger]:
    """Log to `path` and to standard error while the block runs.

    An exception is logged with its traceback and then, as the last line, its message alone; the process ends with
    status 1.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
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
        yield log
        log.info("finished in %.1f s", time.monotonic() - started)
    except Exception as error:
        log.error("%s", traceback.format_exc().rstrip())
        log.error("%s: %s", type(error).__name__, error)
        raise SystemExit(1) from None
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


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
