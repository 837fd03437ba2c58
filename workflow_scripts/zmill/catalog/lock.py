"""A lock that the kernel holds for a process: it ends with the process, however that ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import IO, TextIO


class Locked(Exception):
    """Another process holds the lock; the message is its number and its machine."""


class NoLocks(Exception):
    """A file system has no locks; the message names it and what to do."""


def hold(path: Path, wait: Callable[[str], None] | None = None) -> TextIO:
    """Take the lock `path`; it is held until the handle is closed.

    Parameters
    ----------
    wait : called with the holder of the lock before waiting for it; without it, a held lock raises `Locked`.

    Raises
    ------
    Locked
        Where another process has it.
    NoLocks
        Where the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (the lock lives as long as the handle)
    try:
        try:
            take(handle, path, wait=False)
        except Locked:
            handle.seek(0)
            holder = handle.read().strip() or "?"
            if wait is None:
                raise Locked(holder) from None
            wait(holder)
            take(handle, path, wait=True)
    except BaseException:
        handle.close()
        raise
    handle.truncate(0)
    handle.write(f"{os.getpid()} on {socket.gethostname()}")
    handle.flush()
    return handle


def take(file: IO[str] | int, path: Path, wait: bool) -> None:
    """Lock an open file; with `wait`, wait until no other process holds the lock.

    Parameters
    ----------
    path : of the file, for the message.

    Raises
    ------
    Locked
        Where another process has it and `wait` is false.
    NoLocks
        Where the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Locked from None
    except OSError as error:
        raise NoLocks(
            f"{path}: cannot be locked ({error.strerror}): put results_dir on a file system with locks (a local disk, "
            "NFS 4, Lustre mounted with -o flock)"
        ) from None
