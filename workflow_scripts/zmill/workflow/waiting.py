"""The wait policy of OpenMP threads, which must be set before a library that starts them is loaded."""

from __future__ import annotations

import os

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Waiting threads sleep. By default they spin until the last thread arrives, which may take a time slice on a busy processor: 1,500
small steps of a training then take a minute instead of two seconds (docs/performance.md)."""


def sleep_while_waiting() -> None:
    """Set the policy for this process and every job that it starts, unless the user has set it."""
    for name, value in PASSIVE.items():
        os.environ.setdefault(name, value)
