"""The convolutional network over the bands as published: one convolution, one pooling, one linear layer."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from zmill.models.regression import PointNetwork, PointSettings
from zmill.networks.network import Schedule

ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU}
OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}


class CNNSettings(PointSettings):
    """Settings of the convolutional network; `lr: 1.0e-6` is the published final version."""

    batch: int = Field(16, ge=1, le=2**20)
    lr: float = Field(1e-3, gt=0, le=10)
    ema: float = Field(0.0, ge=0, lt=1)
    optimizer: Literal["adam", "sgd", "rmsprop"] = "rmsprop"
    activation: Literal["none", "relu", "tanh", "elu"] = "none"
    """Activation after the convolution; with `none` the pooling is the only nonlinearity."""
    channels: int = Field(16, ge=1, le=2**14)
    """Number of filters of the convolution."""


class Convolution(nn.Module):
    """Conv1d(1 -> channels, 3, padding 1), MaxPool1d(2, 2), Linear: the bands are the positions of the sequence."""

    def __init__(self, inputs: int, channels: int, activation: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(1, channels, kernel_size=3, stride=1, padding=1),
            ACTIVATIONS[activation](),
            nn.MaxPool1d(2, 2),
            nn.Flatten(),
            nn.Linear(channels * (inputs // 2), 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(1, n, inputs) -> (1, n, 1)."""
        return self.layers(x[0, :, None])[None]


class CNN(PointNetwork):
    """The network; inputs are the bands in their order, then further columns."""

    Settings = CNNSettings
    quick = {"epochs": 10, "lr": 0.003, "activation": "relu"}

    settings: CNNSettings

    def build(self) -> nn.Module:
        return Convolution(self.n_inputs, self.settings.channels, self.settings.activation)

    def optimizer(self, parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
        return OPTIMIZERS[self.settings.optimizer](parameters, lr=schedule.lr, weight_decay=schedule.weight_decay)


MODEL = CNN
