"""Histogram of rows per HEALPix pixel, and the choice of partitions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zmill.catalog.hats import Partition

Histogram = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Pixels that have rows, ascending, and their numbers of rows."""


def histogram(pixels: NDArray[np.int64]) -> Histogram:
    """Rows per pixel."""
    return np.unique(pixels, return_counts=True)


def merge(histograms: list[Histogram]) -> Histogram:
    """The sum of histograms of the same order."""
    pixels = np.concatenate([pixels for pixels, _ in histograms])
    counts = np.concatenate([counts for _, counts in histograms])
    order = np.argsort(pixels, kind="stable")
    pixels, counts = pixels[order], counts[order]
    first = np.flatnonzero(np.diff(pixels, prepend=-1))
    return pixels[first], np.add.reduceat(counts, first) if len(first) else counts


def choose(counted: Histogram, order: int, max_rows: int) -> list[Partition]:
    """The coarsest pixels that have at most `max_rows` rows each, in the order of the sky.

    Parameters
    ----------
    counted : rows per pixel of `order`; pixels of this order are never divided.
    """
    pixels, counts = counted
    chosen: list[Partition] = []
    for level in range(order + 1):
        if not len(pixels):
            break
        parents = pixels >> (2 * (order - level))
        first = np.flatnonzero(np.diff(parents, prepend=-1))
        totals = np.add.reduceat(counts, first)
        fits = (totals <= max_rows) | (level == order)
        chosen += [Partition(level, int(parent)) for parent in parents[first[fits]]]
        rest = ~np.repeat(fits, np.diff(first, append=len(pixels)))
        pixels, counts = pixels[rest], counts[rest]
    return sorted(chosen, key=lambda partition: partition.interval())


def partition_numbers(healpix29: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Number of the partition of each row.

    Parameters
    ----------
    starts : (partitions,) first index of order 29 of each, ascending; together they hold every row.
    """
    return (np.searchsorted(starts, healpix29, side="right") - 1).astype(np.uint32)
