"""Rows in memory: the batch of an input kind, batches of several kinds together, and labelled rows."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np
import xxhash
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zmill.pdf.grid import Grid  # which imports torch: the import of a survey does without

FULL = -1
"""`Batch.information` of a row on which the densities of a model can be relied upon."""

RowNumbers: TypeAlias = slice | NDArray[np.int64] | NDArray[np.bool_]


def row_hashes(*columns: NDArray[Any]) -> NDArray[np.bytes_]:
    """(n,) xxh3-128 in hexadecimal of each row of (n, …) numbers; NaN, which has many bit patterns, equals NaN, and −0 equals 0."""
    parts = [column + 0.0 for column in columns]
    parts = [np.ascontiguousarray(np.where(np.isnan(part), np.nan, part)) for part in parts]
    return np.array(
        [
            xxhash.xxh3_128_hexdigest(b"".join(part[row].tobytes() for part in parts)).encode()
            for row in range(len(parts[0]))
        ],
        "S32",
    )


class Batch(ABC):
    """Rows of an input kind in memory; a subclass is a frozen dataclass of arrays, whose first axis is the row."""

    SHARED: ClassVar[tuple[str, ...]] = ()
    """Fields that are the same for all rows, and no arrays."""

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of the rows, (n, …) each, by the name of the field."""
        names = [entry.name for entry in fields(self) if entry.name not in self.SHARED]  # type: ignore[arg-type]
        return {name: getattr(self, name) for name in names}

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def with_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """A batch of other rows of the same survey. arrays : as `arrays`."""
        return replace(self, **arrays)  # type: ignore[type-var]

    def __getitem__(self, rows: RowNumbers) -> Self:
        """Some of the rows, by a slice, a mask or their numbers, in memory."""
        return self.with_arrays({name: array[rows] for name, array in self.arrays.items()})

    def select(self, rows: RowNumbers) -> Self:
        """As `batch[rows]`, but rows that are not in memory are not read (`zmill.inputs.stored`)."""
        return self[rows]

    def excerpt(self) -> Self:
        """The rows; of rows that are not in memory, so many, spread evenly, as are computed at a time."""
        return self

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Concatenate batches of the same survey."""
        names = parts[0].arrays
        return parts[0].with_arrays({name: np.concatenate([part.arrays[name] for part in parts]) for name in names})

    @property
    def shared(self) -> list[Any]:
        """What is the same for all rows, for the content hash."""
        return [getattr(self, name) for name in self.SHARED]

    def update(self, digest: xxhash.xxh3_128) -> None:
        """Add everything in the rows to a content hash."""
        digest.update(repr(self.shared).encode())
        for array in self.arrays.values():
            digest.update(np.ascontiguousarray(array).data)

    def identities(self) -> NDArray[np.bytes_]:
        """(n,) hash of everything in a row, equal for rows with the same measurements; empty where too little is measured to tell rows apart."""
        columns = [array.reshape(len(self), -1) for array in self.arrays.values()]
        return np.where(self.information() != self.classes, row_hashes(*columns), b"")

    @property
    def row_bytes(self) -> int:
        """Size of a row in memory in bytes, at least 1."""
        return max(1, sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in self.arrays.values()))

    @property
    def nbytes(self) -> int:
        """Size of the rows in memory in bytes."""
        return len(self) * self.row_bytes

    def rows_in(self, size: int, most: int) -> int:
        """Number of rows like these that take up about `size` bytes: at least 1, at most `most`."""
        return max(1, min(most, size // self.row_bytes))

    @abstractmethod
    def brightness(self) -> NDArray[np.float32]:
        """(n,) what bins of metrics and of conformal intervals are made in: a magnitude, or a signal-to-noise ratio; NaN where unknown."""

    @abstractmethod
    def summary_features(self) -> NDArray[np.float64]:
        """(n, k) a few numbers per row, that are close for similar rows; NaN where unknown.

        The out-of-distribution detector and the weights of labelled rows are computed in this space.
        """

    @property
    @abstractmethod
    def feature_names(self) -> list[str]:
        """(k) names of `summary_features`."""

    def noisier(self, factor: float, rng: np.random.Generator) -> Self:
        """The rows with added Gaussian noise of so many times their errors, which grow by as much; of kinds with `InputKind.noisier`."""
        raise NotImplementedError(f"noise cannot be added to {type(self).__name__}")

    @property
    def classes(self) -> int:
        """Number of classes of rows with little information; those of `Degradation.least`."""
        return 0

    def information(self) -> NDArray[np.int32]:
        """(n,) `FULL`, or the number of the class of rows with little information; `classes` where a row has none."""
        return np.where(np.isfinite(self.brightness()), np.int32(FULL), np.int32(0))

    def flags(self) -> NDArray[np.int32]:
        """(n,) bits of the column `flags` that the kind sets."""
        return np.zeros(len(self), np.int32)

    def constants(self) -> dict[str, tuple[float, int]]:
        """Part of the row -> value and number of rows, for each part that is measured in two rows or more and always the same."""
        return {}

    def states(self) -> dict[str, NDArray[np.int32]]:
        """Column -> (n,) bit mask of the parts of a row in that state, for metrics by natural pattern of missing data."""
        return {}

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the bits of `states`."""
        return ()


@dataclass(frozen=True)
class Joint(Batch):
    """Rows that several input kinds describe together, such as an image with its catalogue row.

    kinds : name of the kind -> its batch; the first gives brightness, summary features and states.
    """

    kinds: Mapping[str, Batch]

    @property
    def first(self) -> Batch:
        """The batch of the first kind."""
        return next(iter(self.kinds.values()))

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {f"{name}.{key}": array for name, batch in self.kinds.items() for key, array in batch.arrays.items()}

    def __len__(self) -> int:
        return len(self.first)

    def with_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Joint:
        given = {name: {key: arrays[f"{name}.{key}"] for key in batch.arrays} for name, batch in self.kinds.items()}
        return Joint({name: batch.with_arrays(given[name]) for name, batch in self.kinds.items()})

    @property
    def shared(self) -> list[Any]:
        return [batch.shared for batch in self.kinds.values()]

    def brightness(self) -> NDArray[np.float32]:
        return self.first.brightness()

    def summary_features(self) -> NDArray[np.float64]:
        return self.first.summary_features()

    @property
    def feature_names(self) -> list[str]:
        return self.first.feature_names

    def information(self) -> NDArray[np.int32]:
        """(n,) `FULL`, or 0 where a row has no information of any kind."""
        nothing = [batch.information() == batch.classes for batch in self.kinds.values()]
        return np.where(np.logical_and.reduce(nothing), np.int32(0), np.int32(FULL))

    def flags(self) -> NDArray[np.int32]:
        found = np.zeros(len(self), np.int32)
        for batch in self.kinds.values():
            found |= batch.flags()
        return found

    def states(self) -> dict[str, NDArray[np.int32]]:
        return self.first.states()

    @property
    def parts(self) -> tuple[str, ...]:
        return self.first.parts


@dataclass(frozen=True)
class LabelledBatch:
    """A batch with its spectroscopic redshifts: z (n,) float64, weight (n,) float64.

    batch : `Batch` of the model's input kind, or a `Joint`; or a `Stored` (`zmill.inputs.stored`) of either.
    z_err : (n,) float64, standard deviations of the redshifts; NaN where unknown. None: no error is known.
    """

    batch: Any
    z: NDArray[np.float64]
    weight: NDArray[np.float64]
    z_err: NDArray[np.float64] | None = None

    @property
    def content_hash(self) -> str:
        """xxh3-128 of everything in the rows, in hexadecimal."""
        digest = xxhash.xxh3_128()
        self.batch.update(digest)
        for array in (self.z, self.weight, self.z_err):
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The rows of several."""
        z, weight = (np.concatenate([getattr(part, name) for part in parts]) for name in ("z", "weight"))
        errors = None
        if any(part.z_err is not None for part in parts):
            errors = np.concatenate(
                [np.full(len(part), np.nan) if part.z_err is None else part.z_err for part in parts]
            )
        return cls(type(parts[0].batch).join([part.batch for part in parts]), z, weight, errors)

    def __len__(self) -> int:
        return len(self.z)

    def inside(self, grid: Grid) -> Self:
        """The rows whose redshift is on the grid: no density on it can describe the others."""
        rows = (self.z >= grid.z_min) & (self.z <= grid.z_max)
        return self if rows.all() else self.rows(rows)

    def in_memory(self) -> Self:
        """The same rows, read where they are not in memory."""
        return replace(self, batch=self.batch[:])

    def rows(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        """Some of the rows, by a mask or by their numbers. Rows that are not in memory are not read."""
        errors = None if self.z_err is None else self.z_err[rows]
        return replace(self, batch=self.batch.select(rows), z=self.z[rows], weight=self.weight[rows], z_err=errors)
