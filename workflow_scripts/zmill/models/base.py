"""What a model is: settings, `fit`, `predict`, and a state of arrays and JSON that is saved without pickle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from zmill.models.watch import Watch
from zmill.pdf.grid import Grid
from zmill.sections import Section
from zmill.survey.photometry import Photometry


class Settings(Section):
    """Base of each model's own settings; unknown keys are refused."""


def evenly(rows: int, most: int) -> NDArray[np.int64]:
    """Numbers of all rows or, of more than `most`, of that many spread evenly: they may be sorted by their place on the sky."""
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.int64))


@dataclass(frozen=True)
class Labelled:
    """Photometry with its spectroscopic redshift: z (n,) float64, weight (n,) float64."""

    photometry: Photometry
    z: NDArray[np.float64]
    weight: NDArray[np.float64]

    @classmethod
    def from_arrow(
        cls, sample: pa.Table, bands: tuple[str, ...], extra_names: tuple[str, ...] = (), weighted: bool = True
    ) -> Labelled:
        """Rows of `sample/<split>.parquet`, each of weight 1 if not `weighted`."""
        z, weight = (sample.column(name).to_numpy().astype(np.float64) for name in ("redshift", "weight"))
        if not weighted:
            weight = np.ones(len(z))
        return cls(Photometry.from_arrow(sample, bands, extra_names), z, weight)

    @property
    def content_hash(self) -> str:
        """xxh3-128 of everything in the rows, in hexadecimal."""
        names = [f.name for f in fields(self.photometry) if f.name not in ("bands", "extra_names")]
        digest = xxhash.xxh3_128(repr((self.photometry.bands, self.photometry.extra_names)).encode())
        for array in (*(getattr(self.photometry, name) for name in names), self.z, self.weight):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @classmethod
    def join(cls, parts: Sequence[Labelled]) -> Labelled:
        """The rows of several."""
        z, weight = (np.concatenate([getattr(part, name) for part in parts]) for name in ("z", "weight"))
        return cls(Photometry.join([part.photometry for part in parts]), z, weight)

    def __len__(self) -> int:
        return len(self.z)

    def inside(self, grid: Grid) -> Labelled:
        """The rows whose redshift is on the grid: no density on it can describe the others."""
        rows = (self.z >= grid.z_min) & (self.z <= grid.z_max)
        return self if rows.all() else self.rows(rows)

    def rows(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Labelled:
        """Some of the rows, by a mask or by their numbers."""
        return Labelled(self.photometry[rows], self.z[rows], self.weight[rows])


@dataclass(frozen=True)
class Context:
    """What every model is told beside its settings."""

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
    ) -> Context:
        """From plain values: the reference band by its name, the grid by its ends and size."""
        return cls(tuple(bands), list(bands).index(reference), Grid(**grid), seed, tuple(extra_names), filters)


class Model(ABC):
    """One way of turning photometry into redshift densities.

    A subclass lives in a file of its own in `zmill/models/`, named as in the configuration, and is found there by the
    module's `MODEL`. Whatever it learns (scalers, K, weights) it learns in `fit`, from training rows; validation rows
    only choose (early stopping, K).
    """

    kind: ClassVar[str] = "bands"
    """Kind of input."""
    min_train: ClassVar[int] = 50
    """Fewest training rows it can be fitted on; the run is refused below."""
    Settings: ClassVar[type[Settings]]

    def __init__(self, settings: Any, context: Context) -> None:
        self.settings = settings
        self.context = context
        self.device = torch.device("cpu")
        self.watch = Watch()
        """Looks on while `fit` trains networks."""

    @abstractmethod
    def fit(self, train: Labelled, valid: Labelled, device: torch.device, say: Callable[[str], None]) -> dict[str, Any]:
        """Learn from `train`; `valid` only chooses. Returns facts for the report (history, chosen K, …), JSON-ready."""

    @abstractmethod
    def refit(self, rows: Labelled, device: torch.device, say: Callable[[str], None]) -> None:
        """Learn again, from all of `rows`; what validation rows have chosen in `fit` stays as it is."""

    @abstractmethod
    def predict(self, batch: Photometry) -> Tensor:
        """Densities of a batch: (n, grid.size) float32 on `self.device`, each row integrating to 1 on the grid."""

    @torch.inference_mode()
    def log_density(self, batch: Photometry) -> Tensor:
        """Natural logarithms of the densities of a batch, on any scale: (n, grid.size) float32 on `self.device`.

        A network that ends in a softmax has them before it.
        """
        return self.predict(batch).float().log()

    @abstractmethod
    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything learned: named tensors, and a JSON-ready dictionary."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """The reverse of `state`."""

    def to(self, device: torch.device) -> None:
        """Move what predicts to a device."""
        self.device = device


class LocatedModel(Model):
    """A model whose densities are one shape, put at a place and stretched to a width: two numbers say all of a row.

    Point estimates and quantiles of so small a family can be tabulated once instead of computed row by row.
    """

    @abstractmethod
    def locate(self, batch: Photometry) -> tuple[Tensor, Tensor]:
        """Place (redshift) and natural logarithm of the width of each row's density: (n,) each, on `self.device`."""

    @abstractmethod
    def density_at(self, place: Tensor, log_width: Tensor) -> Tensor:
        """(n, grid.size) normalised densities of given places and widths."""

    @torch.inference_mode()
    def predict(self, batch: Photometry) -> Tensor:
        return self.density_at(*self.locate(batch))
