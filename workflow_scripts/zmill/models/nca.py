"""Neighbors under a learned metric: a network maps galaxies to a space in which near ones have similar redshifts.

Neighborhood component analysis (Goldberger et al. 2004) in its deep form with sampled neighbors (Ye et al. 2024,
"ModernNCA"), for densities: the density is the mean of the labels of the neighbors, smoothed by a Gaussian, with weights exp(-distance²).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from zmill.inputs.base import LabelledBatch
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.features import Fluxes, Luptitudes
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.models.base import Model
from zmill.models.resmlp import Augmented
from zmill.networks.inference import Applied
from zmill.networks.losses import crps_of_probabilities, mean_crps, soft_labels
from zmill.networks.network import Residual, ResidualMLP, load_tensors, tensors_of, train

ROWS = 1024
"""Rows compared with all neighbors at a time."""
SMALLEST = 1e-5
"""Lower bound of probabilities in the cross-entropy, so that the loss of a row without near neighbors is bounded."""


class NCASettings(Residual, Augmented):
    """Settings of the learned neighbors."""

    epochs: int = Field(60, ge=1, le=100_000)
    batch: int = Field(512, ge=1, le=2**20)
    blocks: int = Field(1, ge=0, le=100)
    frequencies: int = Field(8, ge=0, le=1000)
    embedding: int = Field(4, ge=1, le=1000)
    frequency_scale: float = Field(0.05, gt=0, le=1000)
    members: int = Field(2, ge=1, le=100)
    """Number of networks, trained in sequence, whose densities are averaged."""
    dimensions: int = Field(32, ge=1, le=2**14)
    """Number of dimensions of the learned space."""
    candidates: int = Field(4096, ge=2, le=2**20)
    """Number of training rows, drawn again in every step, among which a step searches neighbors."""
    neighbor_rows: int = Field(20_000, ge=2, le=2**30)
    """Largest number of training rows that are stored as neighbors for inference."""


class MetricNeighbors(Model):
    """Softmax over the training rows of the negative squared distances in the learned space."""

    Settings = NCASettings
    quick = {
        "epochs": 10,
        "width": 32,
        "blocks": 1,
        "frequencies": 2,
        "embedding": 2,
        "batch": 128,
        "members": 1,
        "candidates": 300,
    }
    min_train = 200

    settings: NCASettings

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        grid = self.context.grid
        train, valid = train.inside(grid), valid.inside(grid)
        self._prepare(train, device)
        valid_inputs = self.features(Fluxes.of(valid.batch, self.settings.extra, device))
        valid_z = torch.as_tensor(valid.z, dtype=torch.float32, device=device)

        def score(network: nn.Module) -> float:
            neighbors = network(self._neighbors[None])[0].float()
            parts = [self._mixture(network(part[None])[0].float(), neighbors) for part in valid_inputs.split(ROWS)]
            return mean_crps(grid.normalize(torch.cat(parts)), valid_z, grid)

        facts = [self._train(number, score, log) for number in range(self.settings.members)]
        self.epochs = [int(fact["best_epoch"]) for fact in facts]
        self.to(device)
        return facts[0] | {"best_epochs": self.epochs}

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        self._prepare(rows.inside(self.context.grid), device)
        for number in range(self.settings.members):
            self._train(number, None, log)
        self.to(device)

    def _prepare(self, rows: LabelledBatch, device: torch.device) -> None:
        """Fit the scaling of the inputs on the training rows, and store a subset of the rows as neighbors."""
        s = self.settings
        self._fluxes = Fluxes.of(rows.batch, s.extra, device)
        self.features = Luptitudes(len(self.context.of(PhotometryKind).bands), len(s.extra)).to(device)
        self.features.fit(self._fluxes)
        self._z = torch.as_tensor(rows.z, dtype=torch.float32, device=device)
        self._weight = torch.as_tensor(rows.weight / rows.weight.mean(), dtype=torch.float32, device=device)
        self.rows = random_subset(len(rows), s.neighbor_rows, self.context.seed).to(device)
        self._neighbors = self.features(self._fluxes.rows(self.rows))
        self.z, self.log_weight = self._z[self.rows], self._weight[self.rows].log()
        self._label = soft_labels(self.z, self.context.grid, s.label_smoothing)
        self.networks: list[ResidualMLP] = []

    def _train(
        self, number: int, score: Callable[[nn.Module], float] | None, log: Callable[[str], None]
    ) -> dict[str, Any]:
        s, grid, device = self.settings, self.context.grid, self._z.device
        seed = self.context.seed + 1000 * (number + 1)
        torch.manual_seed(seed)
        network = self._network().to(device)
        self.networks.append(network)
        inputs = self.features(self._fluxes)
        label, limits = soft_labels(self._z, grid, s.label_smoothing), self._fluxes.limits()
        among = min(s.candidates, len(inputs))

        def loss(network: nn.Module, chosen: Tensor, generator: torch.Generator) -> Tensor:
            rows = chosen[0]
            drawn = self._fluxes.rows(rows).resampled(s.noise, generator).dropped(s.band_dropout, limits, generator)
            others = torch.randperm(len(inputs), generator=generator, device=device)[:among]
            position = network(torch.cat([self.features(drawn), inputs[others]])[None])[0]
            nearness = near(position[: len(rows)].float(), position[len(rows) :].float()) + self._weight[others].log()
            share = nearness.masked_fill(rows[:, None] == others, -torch.inf).softmax(1)
            found = (share.to(position.dtype) @ label[others].to(position.dtype)).float()
            value = -(label[rows] * found.clamp_min(SMALLEST).log()).sum(1)
            if s.crps:
                value = value + s.crps * crps_of_probabilities(found, self._z[rows], grid)
            return (value * self._weight[rows]).mean()

        return train(
            network, len(inputs), 1, loss, score, s, seed, log, callback=self.callback,
            phase=f"neighbors {number + 1}" + ("" if score else ", refitted"),
            until=None if score else self.epochs[number], parallel=True,
        )  # fmt: skip

    def _network(self) -> ResidualMLP:
        return ResidualMLP(1, self.features.size, self.features.plain, self.settings.dimensions, self.settings)

    def _mixture(self, position: Tensor, neighbors: Tensor, without: Tensor | None = None) -> Tensor:
        """(n, size) probabilities of the grid points, from positions in the learned space.

        without : (n, r) indices in the neighbor table of rows that are excluded as neighbors; -1 for none.
        """
        nearness = near(position, neighbors) + self.log_weight
        if without is not None:
            row, column = (without >= 0).nonzero(as_tuple=True)
            nearness[row, without[row, column]] = -torch.inf
        return nearness.softmax(1).to(self._label.dtype) @ self._label

    @torch.inference_mode()
    def predict(self, batch: Photometry) -> Tensor:
        return self.densities(Fluxes.of(batch, self.settings.extra, self.device))

    def densities(self, fluxes: Fluxes, without: Tensor | None = None) -> Tensor:
        """(n, grid.size) normalized densities of fluxes on the model's device.

        without : (n, r) indices in the neighbor table of rows that are excluded as neighbors; -1 for none.
        """
        rows, grid = len(fluxes.flux), self.context.grid
        density = torch.empty(rows, grid.size, device=self.device)
        for start in range(0, rows, ROWS):
            part = slice(start, start + ROWS)
            inputs = self.features(fluxes.rows(part))
            hidden = None if without is None else without[part]
            found = [
                self._mixture(next(applied.outputs(inputs)).float(), neighbors, hidden)
                for applied, neighbors in zip(self._applied, self._neighbors_of, strict=True)
            ]
            density[part] = grid.normalize(torch.stack(found).mean(0).float())
        return density

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        networks = {f"network{number}": network for number, network in enumerate(self.networks)}
        tensors = tensors_of(features=self.features, **networks)
        return tensors | {"neighbors": self._neighbors, "z": self.z, "log_weight": self.log_weight}, {
            "epochs": self.epochs
        }

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.features = Luptitudes(len(self.context.of(PhotometryKind).bands), len(self.settings.extra))
        self.networks = [self._network() for _ in facts["epochs"]]
        networks = {f"network{number}": network for number, network in enumerate(self.networks)}
        load_tensors(tensors, features=self.features, **networks)
        self._neighbors, self.z, self.log_weight = tensors["neighbors"], tensors["z"], tensors["log_weight"]
        self.epochs = [int(epoch) for epoch in facts["epochs"]]
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.features.to(device)
        self._neighbors, self.z, self.log_weight = (t.to(device) for t in (self._neighbors, self.z, self.log_weight))
        self._applied = [Applied(network.to(device).eval()) for network in self.networks]
        self._label = soft_labels(self.z, self.context.grid, self.settings.label_smoothing).to(self._applied[0].dtype)
        with torch.inference_mode():
            self._neighbors_of = [next(applied.outputs(self._neighbors)).float() for applied in self._applied]


def random_subset(rows: int, most: int, seed: int) -> Tensor:
    """Indices of at most `most` rows in ascending order: all of them, or a random subset."""
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed))[:most].sort().values


def near(one: Tensor, other: Tensor) -> Tensor:
    """(n, m) negative squared distances of (n, d) and (m, d), up to a constant for each of the n rows."""
    return torch.addmm(-other.square().sum(1), one, other.T, alpha=2.0)


MODEL = MetricNeighbors
