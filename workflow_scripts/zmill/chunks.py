"""Some of many rows: ranges of limited size, and rows spread evenly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch  # which most jobs do without


def row_chunks(rows: int, size: int) -> Iterator[slice]:
    """Consecutive chunks of at most `size` rows, as slices."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def cache_sized_chunks(rows: int, size: int, device: torch.device) -> Iterator[slice]:
    """On a CPU, chunks of at most `size` rows, which fit its cache; on other devices one chunk of all rows, because there the
    number of operations determines the run time."""
    return row_chunks(rows, size) if device.type == "cpu" and rows > size else iter([slice(0, rows)])


def evenly(rows: int, most: int) -> NDArray[np.int64]:
    """Numbers of all rows or, of more than `most`, of that many spread evenly: they may be sorted by their place on the sky."""
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.int64))
