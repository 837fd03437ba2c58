"""trainZ: the training rows' n(z) for every row. Knows no photometry: the floor that every model must beat.

Schmidt et al. 2020 (LSST DESC PZ DC1, "trainZ").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zmill.models import base
from zmill.models.base import Labelled, Model
from zmill.survey.photometry import Photometry


class Settings(base.Settings):
    """trainZ has no settings."""


class TrainZ(Model):
    """n(z) of the training rows, a weighted histogram smeared linearly over the grid's points."""

    Settings = Settings
    min_train = 1

    def fit(self, train: Labelled, valid: Labelled, device: torch.device, say: Callable[[str], None]) -> dict[str, Any]:
        self.refit(train, device, say)
        return {}

    def refit(self, rows: Labelled, device: torch.device, say: Callable[[str], None]) -> None:
        grid = self.context.grid
        position = np.clip((rows.z - grid.z_min) / grid.step, 0, grid.size - 1)
        cell = np.minimum(position.astype(np.int64), grid.size - 2)
        right = (position - cell) * rows.weight
        counts = np.bincount(cell, rows.weight - right, grid.size) + np.bincount(cell + 1, right, grid.size)
        self.density = grid.normalize(torch.as_tensor(counts, dtype=torch.float32)[None])

    def predict(self, batch: Photometry) -> Tensor:
        return self.density.expand(len(batch), -1).contiguous()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"density": self.density}, {}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.density = tensors["density"]

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.density = self.density.to(device)


MODEL = TrainZ
