"""A toy model of the toy input kind: a Gaussian at the mean redshift of the nearest training spectra."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from zmill.inputs.base import LabelledBatch
from zmill.models import base
from zmill.models.base import Model

NEIGHBORS = 5


class ToySettings(base.Settings):
    """No settings."""


class ToyNeighbors(Model):
    """The mean of the nearest spectra."""

    inputs = ("toyspectrum",)
    Settings = ToySettings

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        self.refit(train, device, log)
        self.width = float(np.std(self._mean(valid.batch) - valid.z)) + 1e-3
        return {"width": self.width}

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        self.points, self.z = self._points(rows.batch), rows.z

    def _points(self, batch: Any) -> np.ndarray:
        return np.nan_to_num(batch.flux.astype(np.float64))

    def _mean(self, batch: Any) -> np.ndarray:
        _, nearest = cKDTree(self.points).query(self._points(batch), NEIGHBORS)
        return np.asarray(self.z[nearest].mean(1))

    def predict(self, batch: Any) -> Tensor:
        grid = self.context.grid
        away = (grid.tensor(self.device)[None] - torch.as_tensor(self._mean(batch))[:, None]) / self.width
        return grid.normalize((-0.5 * away**2).exp().float())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"points": torch.from_numpy(self.points), "z": torch.from_numpy(self.z)}, {"width": self.width}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.points, self.z, self.width = tensors["points"].numpy(), tensors["z"].numpy(), facts["width"]


MODEL = ToyNeighbors
