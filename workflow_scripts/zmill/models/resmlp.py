"""An ensemble of residual networks that predict a density from luptitudes, colors, errors and masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from zmill.chunks import cache_sized_chunks
from zmill.inputs.base import LabelledBatch
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.features import Fluxes, Luptitudes
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.inputs.photometry.synthetic import synthetic_galaxies
from zmill.models.base import Model, selection_rows
from zmill.networks.inference import Applied
from zmill.networks.losses import density_loss, mean_cde_loss
from zmill.networks.network import Residual, ResidualMLP, Schedule, load_tensors, tensors_of, train
from zmill.sections import Text

PRETRAINING_BATCH = 2
"""Number of rows in a step of pre-training, in units of `batch`."""
ROWS = 4096
"""Number of rows computed at a time, so that activations stay in the processor's cache."""


class Augmented(Schedule):
    """Settings of a training with data augmentation, by noise and missing bands."""

    epochs: int = Field(40, ge=1, le=100_000)
    batch: int = Field(256, ge=1, le=2**20)
    lr: float = Field(4e-3, gt=0, le=10)
    weight_decay: float = Field(0.1, ge=0, le=10)
    ema: float = Field(0.998, ge=0, lt=1)
    patience: int = Field(10, ge=1, le=100_000)
    validate_every: int = Field(2, ge=1, le=1000)
    noise: float = Field(0.5, ge=0, le=10)
    """Gaussian noise of this many times the errors is added to the fluxes in every step."""
    band_dropout: float = Field(0.15, ge=0, le=1)
    """Fraction of the rows of a step from which bands are dropped."""
    label_smoothing: float = Field(0.005, ge=0, le=1)
    """Standard deviation, in 1 + z, of the Gaussian of a label."""
    crps: float = Field(1.0, ge=0, le=1000)
    """Weight of the CRPS, which is added to the cross-entropy."""
    extra: tuple[Text, ...] = ()
    """Inputs in addition to the photometry: `ebv` or names of the survey's columns.extra."""


class ResMLPSettings(Residual, Augmented):
    """Settings of the residual networks."""

    members: int = Field(4, ge=1, le=100)
    """Number of networks whose densities are averaged; each has its own initial weights, row order and noise."""
    synthetic_galaxies: int = Field(300_000, ge=0, le=10**8)
    """Number of synthetic training galaxies, made from the training rows at other redshifts, for pre-training. There is no
    pre-training if there are at least as many training rows, if the survey has no `filters`, or if the number is 0."""
    pretraining_epochs: int = Field(5, ge=1, le=100_000)
    """Number of epochs of pre-training."""
    finetuning_epochs: int = Field(20, ge=1, le=100_000)
    """Largest number of epochs of fine-tuning on the training rows, instead of `epochs`."""
    finetuning_lr: float = Field(1e-3, gt=0, le=10)
    """Highest learning rate of fine-tuning, instead of `lr`."""
    finetuned_members: int = Field(4, ge=1, le=100)
    """Number of networks, instead of `members`, that are pre-trained and fine-tuned, or trained on at least `synthetic_galaxies` rows.
    Such networks differ little."""


class ResidualEnsemble(Model):
    """Density as a softmax over the points of the redshift grid, averaged over the members."""

    Settings = ResMLPSettings
    quick = {
        "epochs": 10,
        "width": 32,
        "blocks": 1,
        "frequencies": 2,
        "embedding": 2,
        "batch": 128,
        "members": 1,
        "synthetic_galaxies": 1000,
        "pretraining_epochs": 1,
        "finetuning_lr": 0.004,
    }
    min_train = 200

    settings: ResMLPSettings
    pretrained: dict[str, Tensor] | None = None
    """Weights after pre-training; None without pre-training."""
    many_rows: bool = False
    """Whether there are at least `synthetic_galaxies` training rows, so that there is no pre-training."""
    unseen_galaxies: int = 0
    """Number of further synthetic galaxies to make, which the networks are not trained on."""
    unseen: Photometry | None = None
    """These further galaxies; None without pre-training."""

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        s, grid = self.settings, self.context.grid
        train, valid = train.inside(grid), valid.inside(grid)
        self.pretrained = self.unseen = None
        self.many_rows = len(train) >= s.synthetic_galaxies > 0
        fluxes = self._prepare(train, device)
        self.pretrained = self._pretrain(train, device, log)
        judged = selection_rows(valid)
        valid_inputs = self.features(Fluxes.of(judged.batch, s.extra, device))
        valid_z = torch.as_tensor(judged.z, dtype=torch.float32, device=device)

        def score(network: nn.Module) -> float:
            return mean_cde_loss(grid.normalize(probability(network, valid_inputs)), valid_z, grid)

        facts = self._fit_rows(train, fluxes, score, log)
        self.epochs = int(facts["best_epoch"])
        return facts

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        rows = rows.inside(self.context.grid)
        self._fit_rows(rows, self._prepare(rows, device), None, log)

    def _pretrain(
        self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Tensor] | None:
        """Train networks on synthetic galaxies, and return their weights; None without pre-training."""
        s, filters = self.settings, self.context.of(PhotometryKind).filters
        unknown = [band for band in self.context.of(PhotometryKind).bands if band not in filters]
        if self.many_rows or not s.synthetic_galaxies:
            return None
        if unknown:
            log(f"no pre-training on synthetic galaxies: the survey's `filters` lack {', '.join(unknown)}")
            return None
        log(f"making {s.synthetic_galaxies:,} synthetic training galaxies from {len(rows):,} rows")
        synthetic = synthetic_galaxies(
            rows, self.context, s.synthetic_galaxies + self.unseen_galaxies, self.context.seed
        )
        self.unseen = synthetic.batch[s.synthetic_galaxies :]
        synthetic = synthetic.rows(np.arange(s.synthetic_galaxies))
        schedule = s.model_copy(update={"epochs": s.pretraining_epochs, "batch": PRETRAINING_BATCH * s.batch})
        self._train(
            synthetic, Fluxes.of(synthetic.batch, s.extra, device), schedule, None, log, "networks, pre-training"
        )
        return self.network.state_dict()

    def _prepare(self, rows: LabelledBatch, device: torch.device) -> Fluxes:
        """Fluxes of training rows. The scaling of the inputs is fitted on them, unless the networks are pre-trained."""
        fluxes = Fluxes.of(rows.batch, self.settings.extra, device)
        if self.pretrained is None:
            self.features = Luptitudes(len(self.context.of(PhotometryKind).bands), len(self.settings.extra)).to(device)
            self.features.fit(fluxes)
        return fluxes

    def _fit_rows(
        self,
        rows: LabelledBatch,
        fluxes: Fluxes,
        score: Callable[[nn.Module], float] | None,
        log: Callable[[str], None],
    ) -> dict[str, Any]:
        """Train on training rows, from the pre-trained weights if there are any.

        score : of a network on the validation rows; None: stop after the number of epochs that the validation rows chose.
        """
        s = self.settings
        if self.pretrained is not None:
            s = s.model_copy(update={"epochs": s.finetuning_epochs, "lr": s.finetuning_lr})
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
        members = s.finetuned_members if self.unseen is not None or self.many_rows else s.members
        self.network = self._network(members).to(device)
        if self.pretrained is not None:
            self.network.load_state_dict(self.pretrained)
        z = torch.as_tensor(rows.z, dtype=torch.float32, device=device)
        weight = torch.as_tensor(rows.weight / rows.weight.mean(), dtype=torch.float32, device=device)
        limits = fluxes.limits()

        def loss(network: nn.Module, chosen: Tensor, generator: torch.Generator) -> Tensor:
            drawn = fluxes.rows(chosen).resampled(s.noise, generator).dropped(s.band_dropout, limits, generator)
            logits = network(self.features(drawn)).float()
            return (density_loss(logits, z[chosen], grid, s.label_smoothing, s.crps) * weight[chosen]).mean(-1).sum()

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
        """(n, grid.size) normalized densities of fluxes on the model's device."""
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
    """(n, size): mean over the members of the softmax of their outputs for the same inputs (n, inputs)."""
    assert isinstance(network, ResidualMLP)
    return network(inputs.expand(network.members, *inputs.shape)).float().softmax(-1).mean(0)


MODEL = ResidualEnsemble
