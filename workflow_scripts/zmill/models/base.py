"""What a model is: settings, `fit`, `predict`, and a state of arrays and JSON that is saved without pickle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmill.chunks import evenly
from zmill.inputs.base import InputKind, LabelledBatch, ModelContext
from zmill.networks.callbacks import Callback
from zmill.sections import Section

Settings = Section
"""Base of each model's own settings; unknown keys are refused."""
VALIDATION_ROWS = 5_000
"""Largest number of validation rows that are used for selection; more would only make it slower."""


def selection_rows(valid: LabelledBatch) -> LabelledBatch:
    """The validation rows that are used for selection: all or, of more than `VALIDATION_ROWS`, that many spread evenly."""
    return valid.rows(evenly(len(valid), VALIDATION_ROWS))


class Neighborhood(NamedTuple):
    """The training rows that are nearest to n rows.

    distance : (n, k), the nearest first; z : (n, k) redshifts; identities : (n, k) their `Batch.identities`.
    far_distance : mean distance above which a row is out of distribution.
    """

    distance: NDArray[np.float32]
    z: NDArray[np.float32]
    identities: NDArray[np.bytes_]
    far_distance: float


class Model(ABC):
    """One way of turning inputs into redshift densities.

    A subclass lives in a file of its own in `zmill/models/`, named as in the configuration, and is found there by the
    module's `MODEL`. Whatever it learns (scalers, K, weights) it learns in `fit`, from training rows; validation rows
    only choose (early stopping, K).
    """

    inputs: ClassVar[tuple[str, ...]] = ("photometry",)
    """Names of the input kinds that it takes. Of one kind, it is given that kind's batch; of several, a `Joint`, in this order."""
    streams: ClassVar[bool] = False
    """Whether `fit` and `refit` only take rows by number (`rows.batch[numbers]`) and call methods of `Batch`, so that a sample that
    is larger than memory can stay on disk. The rows of other types are all in memory."""
    retrieves: ClassVar[bool] = False
    """Whether it has `nearest`."""
    min_train: ClassVar[int] = 50
    """Fewest training rows it can be fitted on; the run is refused below."""
    Settings: ClassVar[type[Settings]]
    quick: ClassVar[dict[str, Any]] = {}
    """Settings with which the tests of all types fit it in seconds, and not badly."""

    def __init__(self, settings: Any, context: ModelContext) -> None:
        self.settings = settings
        self.context = context
        self.device = torch.device("cpu")
        self.callback = Callback()
        """Callback of the training of networks."""

    @classmethod
    def unsuitable(cls, settings: Any, inputs: Mapping[str, InputKind]) -> str:
        """Why a model of these settings cannot be trained on a survey, as a clause with the remedy; empty where it can.

        Asked before any job. inputs : name -> input kind of the survey, with all of `cls.inputs`.
        """
        return ""

    @abstractmethod
    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        """Learn from `train`; `valid` only chooses. Returns facts for the report (history, chosen K, …), JSON-ready."""

    @abstractmethod
    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        """Retrain on all of `rows`; what validation rows have selected in `fit` is kept."""

    @abstractmethod
    def predict(self, batch: Any) -> Tensor:
        """Densities of a batch: (n, grid.size) float32 on `self.device`, each row integrating to 1 on the grid."""

    @torch.inference_mode()
    def log_density(self, batch: Any) -> Tensor:
        """Natural logarithms of the densities of a batch, on any scale: (n, grid.size) float32 on `self.device`.

        A network that ends in a softmax has them before it.
        """
        return self.predict(batch).float().log()

    def far(self, batch: Any) -> NDArray[np.bool_] | None:
        """(n,) whether rows are far from all training rows, where the model measures it; None: the out-of-distribution detector does."""
        return None

    def nearest(self, batch: Any, count: int) -> Neighborhood:
        """The nearest training rows of a batch, of a model that `retrieves`. count : at most so many of each."""
        raise NotImplementedError

    @abstractmethod
    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything learned: named tensors, and a JSON-ready dictionary."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """The reverse of `state`."""

    def to(self, device: torch.device) -> None:
        """Move what predicts to a device."""
        self.device = device


class LocationScaleModel(Model):
    """A model whose densities are a location-scale family: one shape, shifted by `loc` and stretched by a scale.

    Point estimates and quantiles of a family of two parameters can be tabulated once instead of computed row by row.
    """

    @abstractmethod
    def loc_scale(self, batch: Any) -> tuple[Tensor, Tensor]:
        """(n,) loc, a redshift, and (n,) natural logarithm of the scale of each density, on `self.device`."""

    @abstractmethod
    def density_at(self, loc: Tensor, log_scale: Tensor) -> Tensor:
        """(n, grid.size) normalized densities of given loc and log scale, (n,) each."""

    @torch.inference_mode()
    def predict(self, batch: Any) -> Tensor:
        return self.density_at(*self.loc_scale(batch))
