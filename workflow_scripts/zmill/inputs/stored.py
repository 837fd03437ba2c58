"""Labelled rows that are too large for memory: decoded once to temporary files, from which batches are read as they are needed.

A sample of 10^6 spectra takes up 60 GB. Parquet can only be read a row group at a time, and a training takes rows in random order.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from zmill.catalog.sizes import BATCH_BYTES
from zmill.chunks import evenly
from zmill.inputs.base import Batch, ModelContext
from zmill.inputs.batch import RowNumbers

ROWS = 1 << 20
"""Most rows that are computed at a time."""


@dataclass(frozen=True)
class _File:
    """The decoded rows of a table.

    none : batch of no rows. size : number of rows. arrays : name of the array -> file of its rows; the files have no name on
    the disk, so that nothing is left of them when the job ends, however it ends.
    """

    none: Batch
    size: int
    arrays: Mapping[str, IO[bytes]]


@dataclass(frozen=True, eq=False)
class Stored(Batch):
    """Rows on disk. `batch[rows]` reads some of them: a batch of the input kind in memory, the same as of rows that never were on disk.

    files : one for each table. numbers : (n,) numbers of the rows in the files, one after the other.
    """

    files: tuple[_File, ...]
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, table: Path, context: ModelContext) -> Stored:
        """Decode the rows of a table of the sample, row group by row group, to files in its folder.

        Raises
        ------
        OSError
            Where the disk has too little space for them.
        """
        folder = table.parent
        with pq.ParquetFile(table) as file:
            columns = [name for name in context.columns() if name in file.schema_arrow.names]
            schema = file.schema_arrow
            none, size = context.read(schema.empty_table()), file.metadata.num_rows
            needed, free = size * none.row_bytes, shutil.disk_usage(folder).free
            if needed > free:
                raise OSError(
                    f"{table}: its {size:,} rows need {needed / 1e9:.1f} GB of temporary space, and {folder} has {free / 1e9:.1f} GB: "
                    "free some space"
                )
            files = {name: tempfile.TemporaryFile(dir=folder, buffering=0) for name in none.arrays}  # noqa: SIM115 (end with the rows)
            chunk = none.rows_in(BATCH_BYTES, ROWS)
            for group in range(file.num_row_groups):
                # `iter_batches` would keep most of the file in memory.
                table_rows = file.read_row_group(group, columns=columns, use_threads=False)
                for start in range(0, table_rows.num_rows, chunk):
                    for name, array in context.read(table_rows.slice(start, chunk)).arrays.items():
                        expected = none.arrays[name]
                        if (array.dtype, array.shape[1:]) != (expected.dtype, expected.shape[1:]):
                            raise ValueError(
                                f"{table}: {name} has rows of {array.shape[1:]} and of {expected.shape[1:]} values"
                            )
                        _write(files[name], array)
        return cls((_File(none, size, files),), np.arange(size))

    @property
    def _none(self) -> Batch:
        return self.files[0].none

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: RowNumbers) -> Batch:  # type: ignore[override]
        numbers = self.numbers[rows]
        return self._none.with_arrays({name: self._read(name, numbers) for name in self._none.arrays})

    def select(self, rows: RowNumbers) -> Stored:
        return replace(self, numbers=self.numbers[rows])

    def excerpt(self) -> Batch:  # type: ignore[override]
        return self[evenly(len(self), self.rows_in(BATCH_BYTES, ROWS))]

    @classmethod
    def join(cls, parts: Sequence[Stored]) -> Stored:
        files = tuple(file for part in parts for file in part.files)
        before = np.cumsum([0, *(sum(file.size for file in part.files) for part in parts)])
        return cls(files, np.concatenate([part.numbers + first for part, first in zip(parts, before, strict=False)]))

    @property
    def row_bytes(self) -> int:
        return self._none.row_bytes

    @property
    def shared(self) -> list[Any]:
        return self._none.shared

    def update(self, digest: xxhash.xxh3_128) -> None:
        """As of the same rows in memory."""
        digest.update(repr(self.shared).encode())
        for name in self._none.arrays:
            for rows in self._chunks():
                digest.update(self._read(name, self.numbers[rows]).data)

    def brightness(self) -> NDArray[np.float32]:
        return self._of_all(lambda batch: batch.brightness())

    def summary_features(self) -> NDArray[np.float64]:
        return self._of_all(lambda batch: batch.summary_features())

    @property
    def feature_names(self) -> list[str]:
        return self._none.feature_names

    @property
    def classes(self) -> int:
        return self._none.classes

    def information(self) -> NDArray[np.int32]:
        return self._of_all(lambda batch: batch.information())

    def flags(self) -> NDArray[np.int32]:
        return self._of_all(lambda batch: batch.flags())

    def constants(self) -> dict[str, tuple[float, int]]:
        """Of the rows of `excerpt`."""
        return self.excerpt().constants()

    def states(self) -> dict[str, NDArray[np.int32]]:
        def state(name: str) -> NDArray[np.int32]:
            return self._of_all(lambda batch: batch.states()[name])

        return {name: state(name) for name in self._none.states()}

    @property
    def parts(self) -> tuple[str, ...]:
        return self._none.parts

    def _chunks(self) -> Iterator[slice]:
        size = self.rows_in(BATCH_BYTES, ROWS)
        return (slice(start, start + size) for start in range(0, len(self), size))

    def _of_all(self, function: Callable[[Batch], NDArray[Any]]) -> NDArray[Any]:
        """A function of all rows, (n, …), computed chunk by chunk."""
        return np.concatenate([function(self._none), *(function(self[rows]) for rows in self._chunks())])

    def _read(self, name: str, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """One array of rows of given numbers."""
        none = self._none.arrays[name]
        found = np.empty((len(numbers), *none.shape[1:]), none.dtype)
        into = found.reshape(-1).view(np.uint8).data
        width = none.dtype.itemsize * int(np.prod(none.shape[1:]))
        ends = np.cumsum([file.size for file in self.files])
        which = np.searchsorted(ends, numbers, side="right")
        # Consecutive rows of a file are read at once.
        breaks = np.flatnonzero((np.diff(numbers) != 1) | (np.diff(which) != 0)) + 1
        for first, last in pairwise([0, *breaks.tolist(), len(numbers)]) if len(numbers) else ():
            file = self.files[which[first]]
            at = int(numbers[first] - (ends[which[first]] - file.size)) * width
            _read(file.arrays[name], into[first * width : last * width], at)
        return found


def _write(file: IO[bytes], array: NDArray[Any]) -> None:
    """Append the values of an array."""
    left = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    while left:
        left = left[file.write(left) :]


def _read(file: IO[bytes], into: memoryview, at: int) -> None:
    """Fill a buffer with the content of a file from a position on."""
    while into:
        count = os.preadv(file.fileno(), [into], at)
        if not count:
            raise OSError("a temporary file of labelled rows ends too early")
        into, at = into[count:], at + count
