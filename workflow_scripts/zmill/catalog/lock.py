"""A lock that the kernel holds for a process: it ends with the process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TextIO


class Locked(Exception):
    """Another process holds the lock; the message is its number."""


def hold(path: Path) -> TextIO:
    """Take the lock `path`; it is held until the handle is closed.

    Raises
    ------
    Locked
        Where another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (the lock lives as long as the handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.seek(0)
        holder = handle.read().strip() or "?"
        handle.close()
        raise Locked(holder) from None
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle
