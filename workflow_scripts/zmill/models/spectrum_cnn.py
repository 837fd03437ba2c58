"""Convolutional networks over the pixels of a spectrum, as published for Gaia BP/RP and for Euclid-like spectra.

Gaia: Kiraleos (2023), regression of the redshift. Euclid: Stivaktakis et al. (2020, IEEE Trans. Big Data 6, 460), regression or
classification in redshift bins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from zmill.chunks import cache_sized_chunks, row_chunks
from zmill.inputs.base import InputKind, LabelledBatch, ModelContext
from zmill.inputs.spectrum.batch import Spectra
from zmill.inputs.spectrum.continuum import level
from zmill.inputs.spectrum.kind import SpectrumKind
from zmill.models.base import Model
from zmill.networks.device import sent
from zmill.networks.losses import (
    JENSEN_SHANNON,
    LabelDistributions,
    Labels,
    LabelSettings,
    bin_of,
    class_densities,
    jensen_shannon,
)
from zmill.networks.network import Schedule, load_tensors, tensors_of, train
from zmill.pdf.grid import Grid
from zmill.pdf.residuals import ResidualKernel
from zmill.sections import Section

ROWS = 512
"""Number of spectra that a CPU predicts at a time, so that the activations stay in the cache of a core."""
SCALED = 4096
"""Number of spectra that the scaling is fitted to at a time."""
ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU}
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
CLASS_LOSSES = ("cross_entropy", JENSEN_SHANNON)


class Convolution(Section):
    """A convolution along the spectrum, followed by the activation, a pooling and, if chosen, batch normalization."""

    filters: int = Field(ge=1, le=2**14)
    """Number of filters."""
    kernel: int = Field(ge=1, le=10_000)
    """Number of pixels of a filter."""


def _layers(*pairs: tuple[int, int]) -> tuple[Convolution, ...]:
    return tuple(Convolution(filters=filters, kernel=kernel) for filters, kernel in pairs)


class SpectrumCNNSettings(Schedule, LabelSettings):
    """Settings of the network. The defaults are those published for Gaia."""

    epochs: int = Field(20, ge=1, le=100_000)
    batch: int = Field(16, ge=1, le=2**20)
    lr: float = Field(1e-3, gt=0, le=10)
    one_cycle: bool = False
    amp: bool = False
    scaling: Literal["minmax", "standard", "level"] = "minmax"
    """Scaling of the fluxes. `minmax` and `standard`: of each pixel, fitted on the training rows. `level`: each spectrum is divided by the
    median of its absolute fluxes."""
    convolutions: tuple[Convolution, ...] = _layers((256, 5), (256, 5), (128, 3), (64, 2))
    """The convolutions, from the first to the last: a list of `{filters: …, kernel: …}`."""
    padding: Literal["valid", "same"] = "valid"
    """Whether a convolution shortens the spectrum (`valid`), or zeros are added at its ends (`same`)."""
    pool: int = Field(2, ge=1, le=1000)
    """Number of pixels over which the maximum is taken after a convolution; poolings are two pixels apart."""
    batch_norm: bool = False
    """Batch normalization after each pooling."""
    activation: Literal["none", "relu", "tanh", "elu"] = "relu"
    """Activation after a convolution."""
    dense: tuple[Annotated[int, Field(ge=1, le=2**14)], ...] = (256, 256, 128, 64)
    """Widths of the fully connected layers."""
    dense_activation: Literal["none", "relu", "tanh", "elu"] = "relu"
    """Activation after a fully connected layer."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Fraction of the units that a training step drops before each fully connected layer and before the last one."""
    dense_l2: float = Field(0.0, ge=0, le=1000)
    """Weight of the squared weights of the fully connected layers, which is added to the loss."""
    classes: int = Field(0, ge=0, le=100_000)
    """Number of equal bins of the redshift grid's range, of which the network predicts probabilities; 0: it predicts one redshift."""
    loss: Literal["huber", "mse", "cross_entropy", "jensen_shannon"] = "huber"
    """Loss of a redshift: Huber's of threshold 1, or the squared error. With `classes`, and only then: `cross_entropy` with the bin of the
    redshift, or `jensen_shannon` with a distribution over the bins, Gaussian with the error of the redshift."""
    optimizer: Literal["adam", "adamax", "adamw", "rmsprop", "sgd"] = "adamax"

    @model_validator(mode="after")
    def _fits_together(self) -> SpectrumCNNSettings:
        if (self.loss in CLASS_LOSSES) != (self.classes > 0):
            losses = " and ".join(f"`loss: {name}`" for name in CLASS_LOSSES)
            raise ValueError(f"{losses} go with `classes` (found loss {self.loss}, classes {self.classes})")
        return self


class SpectrumNetwork(nn.Module):
    """Convolutions, each with a pooling, and fully connected layers.

    Raises
    ------
    ValueError
        If the spectrum is too short for the convolutions.
    """

    def __init__(self, pixels: int, outputs: int, settings: SpectrumCNNSettings) -> None:
        super().__init__()
        s, channels = settings, 1
        layers: list[nn.Module] = []
        for number, convolution in enumerate(s.convolutions, 1):
            before = pixels
            if s.padding == "valid":
                pixels -= convolution.kernel - 1
            if pixels >= s.pool:
                pixels = (pixels - s.pool) // 2 + 1
            else:
                raise ValueError(
                    f"convolutions: number {number} (kernel {convolution.kernel}, pooling over {s.pool} pixels) is given {before} pixels "
                    "of the spectrum, and they are too few: leave it out, or make kernels shorter"
                )
            added = convolution.kernel - 1 if s.padding == "same" else 0
            layers += [
                *([nn.ConstantPad1d((added // 2, added - added // 2), 0.0)] if added else []),
                nn.Conv1d(channels, convolution.filters, convolution.kernel),
                ACTIVATIONS[s.activation](),
                nn.MaxPool1d(s.pool, 2),
                *([nn.BatchNorm1d(convolution.filters)] if s.batch_norm else []),
            ]
            channels = convolution.filters
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        width, dense = channels * pixels, list[nn.Module]()
        for units in s.dense:
            dense += [nn.Dropout(s.dropout), nn.Linear(width, units), ACTIVATIONS[s.dense_activation]()]
            width = units
        self.dense = nn.Sequential(*dense)
        self.head = nn.Sequential(nn.Dropout(s.dropout), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(n, pixels) -> (n, outputs)."""
        return self.head(self.dense(self.convolutions(x[:, None])))

    def squared_weights(self) -> Tensor:
        """Sum of the squared weights of the fully connected layers."""
        squares = [layer.weight.square().sum() for layer in self.dense if isinstance(layer, nn.Linear)]
        return torch.stack(squares).sum() if squares else torch.zeros((), device=next(self.parameters()).device)


class SpectrumCNN(Model):
    """A published network: one redshift, with a Student's t fitted to the residuals of validation rows, or bins of redshift."""

    inputs = ("spectrum",)
    streams = True
    Settings = SpectrumCNNSettings
    quick = {
        "convolutions": [{"filters": 8, "kernel": 5}, {"filters": 8, "kernel": 5}],
        "dense": [32],
        "epochs": 8,
        "lr": 0.003,
        "batch": 32,
        "optimizer": "adam",
    }
    min_train = 200

    settings: SpectrumCNNSettings

    def __init__(self, settings: SpectrumCNNSettings, context: ModelContext) -> None:
        super().__init__(settings, context)
        self.pixels = len(context.of(SpectrumKind).grid)
        self.offset, self.scale = torch.zeros(self.pixels), torch.ones(self.pixels)
        self.kernel = ResidualKernel(50.0, torch.zeros(6), torch.zeros(2), torch.ones(2))
        self.network = self._build()
        if settings.loss == JENSEN_SHANNON:
            ends = np.linspace(context.grid.z_min, context.grid.z_max, settings.classes + 1)
            half = (ends[1] - ends[0]) / 2
            centers = Grid(ends[0] + half, ends[-1] - half, settings.classes)
            self._distributions = LabelDistributions(centers, ends, settings.label_bins)

    @classmethod
    def unsuitable(cls, settings: SpectrumCNNSettings, inputs: Mapping[str, InputKind]) -> str:
        kind = inputs["spectrum"]
        assert isinstance(kind, SpectrumKind)
        try:
            with torch.device("meta"):
                SpectrumNetwork(len(kind.grid), 1, settings)
        except ValueError as error:
            return str(error)
        return ""

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        grid = self.context.grid
        valid = valid.inside(grid)
        labels = Labels.of(valid, 0.0, device)

        def score(network: nn.Module) -> float:
            return float(self._losses(self._outputs(valid.batch, network), labels).mean())

        facts = self._train(train.inside(grid), score, device, log)
        self.epochs = int(facts["best_epoch"])
        self.to(device)
        if self.settings.classes:
            return facts
        with torch.inference_mode():
            predicted = self._outputs(valid.batch)[:, 0].clone()
        self.kernel = ResidualKernel.fit(predicted, self._log_sn(valid.batch), labels.z).to(device)
        return facts | {"residuals": {"student_nu": self.kernel.nu}}

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        self._train(rows.inside(self.context.grid), None, device, log)
        self.to(device)

    def _build(self) -> SpectrumNetwork:
        return SpectrumNetwork(self.pixels, self.settings.classes or 1, self.settings)

    def _train(
        self,
        rows: LabelledBatch,
        score: Callable[[nn.Module], float] | None,
        device: torch.device,
        log: Callable[[str], None],
    ) -> dict[str, Any]:
        """Train from the beginning; without `score`, for the number of epochs that validation rows selected."""
        s, seed = self.settings, self.context.seed
        self._fit_scaling(rows.batch)
        torch.manual_seed(seed)
        self.network = self._build()
        self.to(device)
        labels = Labels.of(rows, 0.0, device)

        def loss(network: nn.Module, chosen: Tensor, _: torch.Generator) -> Tensor:
            assert isinstance(network, SpectrumNetwork)
            (numbers,) = chosen
            own = labels.rows(numbers)
            outputs = network(self._inputs(rows.batch[numbers.cpu().numpy()])).float()
            value = (self._losses(outputs, own) * own.weight).mean()
            return value + s.dense_l2 * network.squared_weights() if s.dense_l2 else value

        def optimizer_of(parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
            return OPTIMIZERS[s.optimizer](parameters, lr=schedule.lr, weight_decay=schedule.weight_decay)  # type: ignore[call-arg]

        phase, until = ("network", None) if score else ("network, refitted", self.epochs)
        return train(
            self.network, len(rows), 1, loss, score, s, seed, log, optimizer_of, self.callback, phase, until
        )  # fmt: skip

    def _losses(self, outputs: Tensor, labels: Labels) -> Tensor:
        """(n,) losses of outputs (n, 1 or classes)."""
        s, grid = self.settings, self.context.grid
        if s.loss == JENSEN_SHANNON:
            return jensen_shannon(outputs, self._distributions(labels), s.entropy)
        if s.classes:
            number = bin_of(labels.z, grid.z_min, grid.z_max, s.classes)
            return functional.cross_entropy(outputs, number, reduction="none")
        if s.loss == "huber":
            return functional.huber_loss(outputs[:, 0], labels.z, reduction="none")
        return (outputs[:, 0] - labels.z).square()

    def _fit_scaling(self, batch: Spectra) -> None:
        """Fit the scaling of each pixel; masked pixels count as the flux 0 that they have."""
        if self.settings.scaling == "level":
            return
        lowest, highest = np.full(self.pixels, np.inf, np.float32), np.full(self.pixels, -np.inf, np.float32)
        total, squares = np.zeros((2, self.pixels))
        offset: NDArray[Any]
        scale: NDArray[Any]
        for rows in row_chunks(len(batch), SCALED):
            flux = batch[rows].flux
            lowest, highest = np.minimum(lowest, flux.min(0)), np.maximum(highest, flux.max(0))
            total += flux.sum(0, dtype=np.float64)
            squares += np.square(flux, dtype=np.float64).sum(0)
        if self.settings.scaling == "minmax":
            offset, scale = lowest, highest - lowest
        else:
            offset = total / len(batch)
            scale = np.sqrt(np.maximum(squares / len(batch) - offset**2, 0))
        self.offset, self.scale = (torch.as_tensor(part, dtype=torch.float32) for part in (offset, scale))
        self.scale = torch.where(self.scale > 0, self.scale, 1.0)

    def _inputs(self, batch: Spectra) -> Tensor:
        """(n, pixels) scaled fluxes on the model's device."""
        flux: NDArray[np.float32] = batch.flux
        if self.settings.scaling == "level":
            flux = flux / level(batch.flux, batch.ivar)[:, None]
        return (sent(np.ascontiguousarray(flux), self.device) - self.offset) / self.scale

    def _log_sn(self, batch: Spectra) -> Tensor:
        """(n,) logarithms of the signal-to-noise ratios on the model's device; 0 where unknown."""
        ratio = torch.nan_to_num(torch.as_tensor(batch.brightness(), dtype=torch.float32), nan=1.0)
        return sent(ratio.clamp_min(0.01).log(), self.device)

    @torch.inference_mode()
    def _outputs(self, batch: Spectra, network: nn.Module | None = None) -> Tensor:
        """(n, 1 or classes) outputs of the network."""
        network = network or self.network
        pieces = cache_sized_chunks(len(batch), ROWS, self.device)
        return torch.cat([network(self._inputs(batch[rows])).float() for rows in pieces])

    @torch.inference_mode()
    def embed(self, batch: Spectra) -> Tensor:
        """(n, width of the last fully connected layer) float32 embeddings of spectra on the model's device."""
        pieces = cache_sized_chunks(len(batch), ROWS, self.device)
        layers = self.network.convolutions, self.network.dense
        return torch.cat([layers[1](layers[0](self._inputs(batch[rows])[:, None])).float() for rows in pieces])

    @torch.inference_mode()
    def predict(self, batch: Spectra) -> Tensor:
        outputs, grid = self._outputs(batch), self.context.grid
        if not self.settings.classes:
            return self.kernel(outputs[:, 0], self._log_sn(batch), grid)
        return grid.normalize(outputs.softmax(1) @ self._to_grid)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = tensors_of(network=self.network) | {"offset": self.offset, "scale": self.scale}
        tensors |= {f"kernel_{name}": getattr(self.kernel, name) for name in ("coefficients", "center", "spread")}
        return tensors, {"epochs": self.epochs, "student_nu": self.kernel.nu}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        load_tensors(tensors, network=self.network)
        self.offset, self.scale = tensors["offset"], tensors["scale"]
        parts = (tensors[f"kernel_{name}"] for name in ("coefficients", "center", "spread"))
        self.kernel = ResidualKernel(float(facts["student_nu"]), *parts)
        self.epochs = int(facts["epochs"])
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.network.to(device).eval()
        self.offset, self.scale, self.kernel = self.offset.to(device), self.scale.to(device), self.kernel.to(device)
        if self.settings.classes:
            self._to_grid = class_densities(self.context.grid, self.settings.classes).to(device)


MODEL = SpectrumCNN
