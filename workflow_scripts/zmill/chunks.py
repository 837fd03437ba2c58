"""Row ranges of limited size."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def row_chunks(rows: int, size: int) -> Iterator[slice]:
    """Consecutive chunks of at most `size` rows, as slices."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def cache_sized_chunks(rows: int, size: int, device: torch.device) -> Iterator[slice]:
    """On a CPU, chunks of at most `size` rows, which fit its cache; on other devices one chunk of all rows, because there the
    number of operations determines the run time."""
    return row_chunks(rows, size) if device.type == "cpu" and rows > size else iter([slice(0, rows)])
