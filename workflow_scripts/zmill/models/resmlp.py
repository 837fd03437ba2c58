"""An ensemble of residual networks from luptitudes, colors, noise and masks to a density."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from zmill.chunks import cache_sized_chunks
from zmill.inputs.base import LabelledBatch, evenly
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.features import Fluxes, Luptitudes
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.inputs.photometry.synthetic import synthetic_galaxies
from zmill.models.base import Model
from zmill.models.knn import JUDGED
from zmill.networks.inference import Applied
from zmill.networks.losses import density_loss, mean_cde_loss
from zmill.networks.network import Residual, ResidualMLP, Schedule, load_tensors, tensors_of, train
from zmill.sections import Text

BATCH = 2
"""Moved galaxies in a step, in batches of training rows: there are enough of them."""
ROWS = 4096
"""Rows computed at a time, so that activations stay in the processor's cache."""


class Augmented(Schedule):
    """What a network that is told of the noise is trained on, and how."""

    epochs: int = Field(40, ge=1, le=100_000)
    batch: int = Field(256, ge=1, le=2**20)
    lr: float = Field(4e-3, gt=0, le=10)
    weight_decay: float = Field(0.1, ge=0, le=10)
    ema: float = Field(0.998, ge=0, lt=1)
    patience: int = Field(10, ge=1, le=100_000)
    look_every: int = Field(2, ge=1, le=1000)
    noise: float = Field(0.5, ge=0, le=10)
    """Fluxes are drawn again in every step from their errors times this."""
    drop: float = Field(0.15, ge=0, le=1)
    """Share of the rows of a step that lose bands."""
    smooth: float = Field(0.005, ge=0, le=1)
    """Standard deviation, in 1 + z, that a label is spread over."""
    crps: float = Field(1.0, ge=0, le=1000)
    """Weight of the CRPS beside the cross-entropy."""
    extra: tuple[Text, ...] = ()
    """Inputs beside the photometry: `ebv` or names of the survey's columns.extra."""


class ResMLPSettings(Residual, Augmented):
    """Settings of the residual networks."""

    members: int = Field(4, ge=1, le=100)
    """Networks whose densities are averaged; each has its own start, row order and noise."""
    moved: int = Field(300_000, ge=0, le=10**8)
    """Galaxies that are made of the training rows, by moving them in redshift, and learned from first, unless there are as many
    training rows; 0: none. They take the survey's `filters`: without these there are none."""
    passes: int = Field(5, ge=1, le=100_000)
    """Passes over them."""
    epochs_after: int = Field(20, ge=1, le=100_000)
    """`epochs` and `lr` on the training rows after that."""
    lr_after: float = Field(1e-3, gt=0, le=10)
    members_after: int = Field(4, ge=1, le=100)
    """`members` of networks that are trained on moved galaxies first, or on as many training rows: these differ little."""


class ResidualEnsemble(Model):
    """Density as a softmax over the points of the redshift grid, averaged over the members."""

    Settings = ResMLPSettings
    quick = {
        "epochs": 10,
        "width": 32,
        "blocks": 1,
        "waves": 2,
        "embedding": 2,
        "batch": 128,
        "members": 1,
        "moved": 1000,
        "passes": 1,
        "lr_after": 0.004,
    }
    min_train = 200

    settings: ResMLPSettings
    before: dict[str, Tensor] | None = None
    """Weights of the networks that were pre-trained on moved galaxies; None where none are made."""
    many: bool = False
    """Whether there are as many training rows as galaxies would be moved."""
    spare: int = 0
    """Further moved galaxies to be made, which the networks are not trained on."""
    made: Photometry | None = None
    """These further galaxies; None where none are made."""

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        s, grid = self.settings, self.context.grid
        train, valid = train.inside(grid), valid.inside(grid)
        self.before = self.made = None
        self.many = len(train) >= s.moved > 0
        fluxes = self._prepare(train, device)
        self.before = self._pretrained(train, device, log)
        judged = valid.rows(evenly(len(valid), JUDGED))
        valid_inputs = self.features(Fluxes.of(judged.batch, s.extra, device))
        valid_z = torch.as_tensor(judged.z, dtype=torch.float32, device=device)

        def score(network: nn.Module) -> float:
            return mean_cde_loss(grid.normalize(probability(network, valid_inputs)), valid_z, grid)

        facts = self._learn(train, fluxes, score, log)
        self.epochs = int(facts["best_epoch"])
        return facts

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        rows = rows.inside(self.context.grid)
        self._learn(rows, self._prepare(rows, device), None, log)

    def _pretrained(
        self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Tensor] | None:
        """Weights of networks that were trained on galaxies made of training rows; None where none are made."""
        s, filters = self.settings, self.context.of(PhotometryKind).filters
        unknown = [band for band in self.context.of(PhotometryKind).bands if band not in filters]
        if self.many or not s.moved:
            return None
        if unknown:
            log(f"no galaxies are made by moving training rows: the survey's `filters` lack {', '.join(unknown)}")
            return None
        log(f"making {s.moved:,} galaxies of {len(rows):,} by moving them in redshift")
        made = synthetic_galaxies(rows, self.context, s.moved + self.spare, self.context.seed)
        self.made, made = made.batch[s.moved :], made.rows(np.arange(s.moved))
        schedule = s.model_copy(update={"epochs": s.passes, "batch": BATCH * s.batch})
        self._train(made, Fluxes.of(made.batch, s.extra, device), schedule, None, log, "networks, moved galaxies")
        return self.network.state_dict()

    def _prepare(self, rows: LabelledBatch, device: torch.device) -> Fluxes:
        """Fluxes of training rows; the first also scale the inputs."""
        fluxes = Fluxes.of(rows.batch, self.settings.extra, device)
        if self.before is None:
            self.features = Luptitudes(len(self.context.of(PhotometryKind).bands), len(self.settings.extra)).to(device)
            self.features.fit(fluxes)
        return fluxes

    def _learn(
        self,
        rows: LabelledBatch,
        fluxes: Fluxes,
        score: Callable[[nn.Module], float] | None,
        log: Callable[[str], None],
    ) -> dict[str, Any]:
        """Train on training rows, from the pre-trained weights where there are such; without a score for the epochs that one chose."""
        s = self.settings
        if self.before is not None:
            s = s.model_copy(update={"epochs": s.epochs_after, "lr": s.lr_after})
        phase, until = ("networks", None) if score else ("networks, refitted", self.epochs)
        return self._train(rows, fluxes, s, score, log, phase, until)

    def _train(
        self,
        rows: LabelledBatch,
        fluxes: Fluxes,
        s: ResMLPSettings,
        score: Callable[[nn.Module], float] | None,
        log: Callable[[str], None],
        phase: str,
        until: int | None = None,
    ) -> dict[str, Any]:
        grid, seed, device = self.context.grid, self.context.seed, fluxes.flux.device
        torch.manual_seed(seed)
        enough = self.made is not None or self.many
        self.network = self._network(s.members_after if enough else s.members).to(device)
        if self.before is not None:
            self.network.load_state_dict(self.before)
        z = torch.as_tensor(rows.z, dtype=torch.float32, device=device)
        weight = torch.as_tensor(rows.weight / rows.weight.mean(), dtype=torch.float32, device=device)
        limits = fluxes.limits()

        def loss(network: nn.Module, chosen: Tensor, generator: torch.Generator) -> Tensor:
            drawn = fluxes.rows(chosen).resampled(s.noise, generator).dropped(s.drop, limits, generator)
            logits = network(self.features(drawn)).float()
            return (density_loss(logits, z[chosen], grid, s.smooth, s.crps) * weight[chosen]).mean(-1).sum()

        facts = train(
            self.network, len(rows), self.network.members, loss, score, s, seed, log, callback=self.callback,
            phase=phase, until=until, parallel=True,
        )  # fmt: skip
        self.to(device)
        return facts

    def _network(self, members: int) -> ResidualMLP:
        features = self.features
        return ResidualMLP(members, features.size, features.plain, self.context.grid.size, self.settings)

    @torch.inference_mode()
    def predict(self, batch: Photometry) -> Tensor:
        return self.densities(Fluxes.of(batch, self.settings.extra, self.device))

    @torch.inference_mode()
    def log_density(self, batch: Photometry) -> Tensor:
        return self._applied.log_probability(self.features.of(batch, self.settings.extra))

    def densities(self, fluxes: Fluxes) -> Tensor:
        """(n, grid.size) normalised densities of fluxes on the model's device."""
        rows, grid = len(fluxes.flux), self.context.grid
        density = torch.empty(rows, grid.size, device=self.device)
        for piece in cache_sized_chunks(rows, ROWS, self.device):
            inputs = self.features(fluxes.rows(piece))
            grid.normalize(self._applied.probability(inputs), out=density[piece])
        return density

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return tensors_of(features=self.features, network=self.network), {"epochs": self.epochs}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.features = Luptitudes(len(self.context.of(PhotometryKind).bands), len(self.settings.extra))
        self.network = self._network(len(tensors["network.stem.weight"]))
        load_tensors(tensors, features=self.features, network=self.network)
        self.epochs = int(facts["epochs"])
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.features.to(device)
        self._applied = Applied(self.network.to(device).eval())


def probability(network: nn.Module, inputs: Tensor) -> Tensor:
    """(n, size): softmax of every member's answer to the same inputs (n, inputs), averaged."""
    assert isinstance(network, ResidualMLP)
    return network(inputs.expand(network.members, *inputs.shape)).float().softmax(-1).mean(0)


MODEL = ResidualEnsemble
