"""trainZ: the training rows' n(z) for every row. It uses no photometry and is the baseline that every model must beat.

Schmidt et al. 2020 (LSST DESC PZ DC1, "trainZ").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zmill.inputs.base import LabelledBatch
from zmill.inputs.photometry.batch import Photometry
from zmill.models import base
from zmill.models.base import Model
from zmill.pdf.histogram import n_of_z


class Settings(base.Settings):
    """trainZ has no settings."""


class TrainZ(Model):
    """n(z) of the training rows, the same as in `zmill.training.prior`."""

    Settings = Settings
    min_train = 1

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        self.refit(train, device, log)
        return {}

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        self.density = n_of_z(rows.z, rows.weight, self.context.grid)[None]

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
