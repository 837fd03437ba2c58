"""What a model is given: labelled rows, and what it knows of the survey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from zmill.inputs.photometry.batch import Photometry
from zmill.pdf.grid import Grid


def evenly(rows: int, most: int) -> NDArray[np.int64]:
    """Numbers of all rows or, of more than `most`, of that many spread evenly: they may be sorted by their place on the sky."""
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.int64))


@dataclass(frozen=True)
class LabelledBatch:
    """A batch with its spectroscopic redshifts: z (n,) float64, weight (n,) float64."""

    batch: Photometry
    z: NDArray[np.float64]
    weight: NDArray[np.float64]

    @classmethod
    def from_arrow(
        cls, sample: pa.Table, bands: tuple[str, ...], extra_names: tuple[str, ...] = (), weighted: bool = True
    ) -> LabelledBatch:
        """Rows of `sample/<split>.parquet`, each of weight 1 if not `weighted`."""
        z, weight = (sample.column(name).to_numpy().astype(np.float64) for name in ("redshift", "weight"))
        if not weighted:
            weight = np.ones(len(z))
        return cls(Photometry.from_arrow(sample, bands, extra_names), z, weight)

    @property
    def content_hash(self) -> str:
        """xxh3-128 of everything in the rows, in hexadecimal."""
        names = [f.name for f in fields(self.batch) if f.name not in ("bands", "extra_names")]
        digest = xxhash.xxh3_128(repr((self.batch.bands, self.batch.extra_names)).encode())
        for array in (*(getattr(self.batch, name) for name in names), self.z, self.weight):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @classmethod
    def join(cls, parts: Sequence[LabelledBatch]) -> LabelledBatch:
        """The rows of several."""
        z, weight = (np.concatenate([getattr(part, name) for part in parts]) for name in ("z", "weight"))
        return cls(Photometry.join([part.batch for part in parts]), z, weight)

    def __len__(self) -> int:
        return len(self.z)

    def inside(self, grid: Grid) -> LabelledBatch:
        """The rows whose redshift is on the grid: no density on it can describe the others."""
        rows = (self.z >= grid.z_min) & (self.z <= grid.z_max)
        return self if rows.all() else self.rows(rows)

    def rows(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> LabelledBatch:
        """Some of the rows, by a mask or by their numbers."""
        return LabelledBatch(self.batch[rows], self.z[rows], self.weight[rows])


@dataclass(frozen=True)
class ModelContext:
    """What a model is given in addition to its settings."""

    bands: tuple[str, ...]
    reference: int
    """Index of the reference band."""
    grid: Grid
    seed: int
    extra_names: tuple[str, ...] = ()
    filters: dict[str, str] | None = None

    @classmethod
    def named(
        cls,
        bands: Sequence[str],
        reference: str,
        grid: dict[str, Any],
        seed: int,
        extra_names: Sequence[str],
        filters: dict[str, str] | None,
    ) -> ModelContext:
        """From plain values: the reference band by its name, the grid by its ends and size."""
        return cls(tuple(bands), list(bands).index(reference), Grid(**grid), seed, tuple(extra_names), filters)


def n_of_z(rows: LabelledBatch, grid: Grid) -> Tensor:
    """(grid.size,) float32 n(z) of labelled rows: a weighted histogram spread linearly over the grid points next to each redshift.

    Redshifts beyond the grid are left out; flat where there are no others.
    """
    rows = rows.inside(grid)
    position = np.clip((rows.z - grid.z_min) / grid.step, 0, grid.size - 1)
    cell = np.minimum(position.astype(np.int64), grid.size - 2)
    right = (position - cell) * rows.weight
    counts = np.bincount(cell, rows.weight - right, grid.size) + np.bincount(cell + 1, right, grid.size)
    return grid.normalize(torch.as_tensor(counts, dtype=torch.float32)[None])[0]
