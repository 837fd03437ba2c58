"""The fully connected network as published: magnitudes to one redshift, squared error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from zmill.models.regression import PointNetwork, PointSettings
from zmill.networks.inference import AppliedLayers
from zmill.networks.network import FullyConnected


class FCNNSettings(PointSettings):
    """Settings of the fully connected network. The defaults are the published final version; `scaling: none` with lr
    0.01 is the published version that fails."""

    hidden: tuple[Annotated[int, Field(ge=1, le=2**14)], ...] = (128, 128, 64)
    """Widths of the hidden layers."""


class FCNN(PointNetwork):
    """ReLU layers of the given widths."""

    Settings = FCNNSettings
    quick = {"lr": 0.003, "epochs": 10, "hidden": [32, 32], "ema": 0.0}

    settings: FCNNSettings

    def build(self) -> nn.Module:
        return FullyConnected(1, self.n_inputs, self.settings.hidden, 1)

    def applied(self) -> Callable[[Tensor], Tensor]:
        assert isinstance(self.network, FullyConnected)
        return AppliedLayers(self.network)


MODEL = FCNN
