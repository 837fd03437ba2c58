"""Convolutional networks over stamps, as published: Pasquet et al. (2019, A&A 621, A26), and two of Theodoropoulos (M2 thesis)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from zmill.chunks import cache_sized_chunks
from zmill.inputs.base import InputKind, LabelledBatch, ModelContext
from zmill.inputs.image.batch import Images
from zmill.inputs.image.features import StampInputs, Stamps, prepared
from zmill.inputs.image.kind import ImageKind
from zmill.models.base import Model, selection_rows
from zmill.networks.images import GoogLeNet, Pasquet, Sequential, compressed, turned
from zmill.networks.losses import bin_of, class_densities
from zmill.networks.network import Schedule, load_tensors, tensors_of, train

ROWS = 64
"""Number of stamps that a CPU computes at a time."""
EXTRA = 1
"""Number of further inputs: E(B−V)."""


class ImageCNNSettings(Schedule):
    """Settings of the network."""

    architecture: Literal["sequential", "inception", "pasquet"] = "pasquet"
    """`pasquet`: Pasquet et al. (2019). `sequential` and `inception`: the two networks of Theodoropoulos."""
    layers: int = Field(9, ge=1, le=100)
    """Of `sequential`, the number N of layers with 64 filters; of `inception`, the number of blocks, 7 as published."""
    epochs: int = Field(30, ge=1, le=100_000)
    batch: int = Field(128, ge=1, le=2**20)
    lr: float = Field(1e-3, gt=0, le=10)
    classes: int = Field(180, ge=2, le=100_000)
    """Number of equal bins of the redshift grid's range, of which the network predicts probabilities."""


class ImageCNN(Model):
    """A published network: probabilities of bins of redshift, from the pixels and E(B−V)."""

    inputs = ("image",)
    streams = True
    Settings = ImageCNNSettings
    quick = {"architecture": "sequential", "layers": 2, "epochs": 4, "batch": 32, "lr": 0.002, "classes": 40}
    min_train = 200

    settings: ImageCNNSettings

    def __init__(self, settings: ImageCNNSettings, context: ModelContext) -> None:
        super().__init__(settings, context)
        kind = context.of(ImageKind)
        self.features = StampInputs(len(kind.bands))
        self.network = _network(settings, kind)

    @classmethod
    def unsuitable(cls, settings: ImageCNNSettings, inputs: Mapping[str, InputKind]) -> str:
        kind = inputs["image"]
        assert isinstance(kind, ImageKind)
        try:
            with torch.device("meta"):
                _network(settings, kind)
        except ValueError as error:
            return str(error)
        return ""

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        valid = valid.inside(self.context.grid)
        judged = selection_rows(valid)
        bins = self._bins(judged, device)

        def score(network: nn.Module) -> float:
            return float(functional.cross_entropy(self._outputs(judged.batch, network), bins))

        facts = self._train(train.inside(self.context.grid), score, device, log)
        self.epochs = int(facts["best_epoch"])
        self.to(device)
        return facts

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        self._train(rows.inside(self.context.grid), None, device, log)
        self.to(device)

    def _bins(self, rows: LabelledBatch, device: torch.device) -> Tensor:
        z = torch.as_tensor(rows.z, dtype=torch.float32, device=device)
        return bin_of(z, self.context.grid.z_min, self.context.grid.z_max, self.settings.classes)

    def _train(
        self,
        rows: LabelledBatch,
        score: Callable[[nn.Module], float] | None,
        device: torch.device,
        log: Callable[[str], None],
    ) -> dict[str, Any]:
        """Train from the beginning; without `score`, for the number of epochs that validation rows selected."""
        seed = self.context.seed
        torch.manual_seed(seed)
        self.network = _network(self.settings, self.context.of(ImageKind))
        self.features.fit(rows.batch.excerpt())
        self.to(device)
        bins = self._bins(rows, device)
        weight = torch.as_tensor(rows.weight / rows.weight.mean(), dtype=torch.float32, device=device)
        stamps = prepared(rows.batch, self.features)

        def loss(network: nn.Module, chosen: Tensor, generator: torch.Generator) -> Tensor:
            (numbers,) = chosen
            own = stamps(numbers)
            symmetry = torch.randint(0, 8, numbers.shape, generator=generator, device=device)
            outputs = network(compressed(turned(own.pixels, symmetry)), self._extra(own)).float()
            return (functional.cross_entropy(outputs, bins[numbers], reduction="none") * weight[numbers]).mean()

        phase, until = ("network", None) if score else ("network, refitted", self.epochs)
        return train(
            self.network, len(rows), 1, loss, score, self.settings, seed, log, callback=self.callback, phase=phase, until=until, parallel=True
        )  # fmt: skip

    @staticmethod
    def _extra(stamps: Stamps) -> Tensor:
        """(n, 1) E(B−V); 0 where unknown."""
        return torch.nan_to_num(stamps.ebv, nan=0.0)[:, None]

    @torch.inference_mode()
    def _outputs(self, batch: Images, network: nn.Module | None = None) -> Tensor:
        """(n, classes) outputs of the network."""
        network, found = network or self.network, []
        for rows in cache_sized_chunks(len(batch), ROWS, self.device):
            stamps = self.features.stamps(batch[rows])
            found.append(network(compressed(stamps.pixels), self._extra(stamps)).float())
        return torch.cat(found)

    @torch.inference_mode()
    def predict(self, batch: Images) -> Tensor:
        return self.context.grid.normalize(self._outputs(batch).softmax(1) @ self._to_grid)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return tensors_of(features=self.features, network=self.network), {"epochs": self.epochs}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        load_tensors(tensors, features=self.features, network=self.network)
        self.epochs = int(facts["epochs"])
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.features.to(device)
        self.network.to(device).eval()
        self._to_grid = class_densities(self.context.grid, self.settings.classes).to(device)


def _network(s: ImageCNNSettings, kind: ImageKind) -> nn.Module:
    given = len(kind.bands), kind.size, EXTRA, s.classes
    if s.architecture == "pasquet":
        return Pasquet(*given)
    return (Sequential if s.architecture == "sequential" else GoogLeNet)(*given, s.layers)


MODEL = ImageCNN
