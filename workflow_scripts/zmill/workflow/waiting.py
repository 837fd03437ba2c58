"""How threads that share an operation wait for one another: set before anything is loaded that starts such threads."""

from __future__ import annotations

import os

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
"""They sleep. By default OpenMP's threads run in circles until the last has come, which on a processor that is busy with other work
may be a time slice away: 1,500 small steps of a training then take a minute and not two seconds (docs/performance.md)."""


def sleep_while_waiting() -> None:
    """Set it for this process and for every job that it starts, unless the user has set it."""
    for name, value in PASSIVE.items():
        os.environ.setdefault(name, value)
