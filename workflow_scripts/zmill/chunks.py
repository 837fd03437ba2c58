"""Rows taken some at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def slices(rows: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` rows."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def in_cache(rows: int, size: int, device: torch.device) -> Iterator[slice]:
    """The same, of as many rows as stay in a processor's cache; on any other device one of all rows, for there it is the
    number of operations that costs, not what they are given."""
    return slices(rows, size) if device.type == "cpu" and rows > size else iter([slice(0, rows)])
