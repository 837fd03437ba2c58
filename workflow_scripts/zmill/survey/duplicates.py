"""Identifiers that occur more than once in a survey of any size.

Every piece of the survey stores the sorted 64-bit hashes of its identifiers. Hashes are compared range by range, so that
memory holds one range of them. Repeated hashes are then compared by value: two identifiers with the same hash do not
count as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

RANGE_HASHES = 16_000_000
"""Approximate number of hashes (8 bytes each) that are compared at a time."""


def hashes(ids: pa.Array) -> Hashes:
    """64-bit hash of each identifier (int64 or string, no nulls), evenly spread."""
    if pa.types.is_string(ids.type):
        import pandas as pd  # only here: most workers need no pandas, and it takes long to import

        return np.asarray(pd.util.hash_array(ids.to_numpy(zero_copy_only=False), categorize=False), np.uint64)
    mixed: Hashes = ids.to_numpy(zero_copy_only=False).view(np.uint64).copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64 (Steele et al. 2014)
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def ranges(count: int) -> Iterator[tuple[int, int]]:
    """Ranges of hash values, first and last, each with about `RANGE_HASHES` of `count` evenly distributed hashes."""
    number = -(-count // RANGE_HASHES) or 1
    edges = [(part << 64) // number for part in range(number + 1)]
    for first, behind in pairwise(edges):
        yield first, behind - 1


def repeated(files: Sequence[Path], first: int, last: int) -> Hashes:
    """Hashes between `first` and `last` that occur more than once in files of sorted hashes (`.npy`)."""
    parts = []
    for file in files:
        stored = np.load(file, mmap_mode="r")
        low = int(np.searchsorted(stored, np.uint64(first), side="left"))
        high = int(np.searchsorted(stored, np.uint64(last), side="right"))
        parts.append(np.array(stored[low:high]))
    together = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.uint64)
    return np.unique(together[1:][together[1:] == together[:-1]])


def contains_any(file: Path, wanted: Hashes) -> bool:
    """Whether a file of sorted hashes has any of the `wanted` ones."""
    stored = np.load(file, mmap_mode="r")
    if not len(stored) or not len(wanted):
        return False
    index = np.minimum(np.searchsorted(stored, wanted), len(stored) - 1)
    return bool(np.any(stored[index] == wanted))


class Owners:
    """Which occurrence of a repeated identifier is kept: the first in the order of the files.

    Parameters
    ----------
    first_piece : number of the piece of the survey in which each repeated identifier comes first.
    """

    def __init__(self, first_piece: dict[int | str, int]) -> None:
        self.first_piece = first_piece
        as_array = pa.array(list(first_piece)) if first_piece else pa.array([], pa.int64())
        self._hashes = np.sort(hashes(as_array))

    def later(self, ids: pa.Array, piece: int, seen: set[int | str]) -> NDArray[np.bool_]:
        """Whether each row repeats an earlier identifier.

        Parameters
        ----------
        ids : identifiers without nulls.
        piece : number of their piece.
        seen : repeated identifiers in earlier rows of this piece; those of these rows are added.
        """
        found = np.zeros(len(ids), np.bool_)
        if not self.first_piece:
            return found
        for row in np.flatnonzero(np.isin(hashes(ids), self._hashes)):
            value = ids[int(row)].as_py()
            owner = self.first_piece.get(value)
            if owner is None:
                continue
            found[row] = owner != piece or value in seen
            seen.add(value)
        return found
