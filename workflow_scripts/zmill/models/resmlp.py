"""The flagship for tables: an ensemble of residual networks from luptitudes, colors, noise and masks to a density.

`distill` then trains one small network on the ensemble's densities, so that a survey is predicted at the cost of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from zmill.models.base import Context, Labelled, Model
from zmill.models.features import Fluxes, Luptitudes
from zmill.models.losses import cross_entropy, crps_of_probabilities, mean_crps, soft_labels
from zmill.models.network import Applied, ResidualMLP, Schedule, train
from zmill.survey.photometry import Photometry

ROWS = 4096
"""Rows computed at a time, so that activations stay in the processor's cache."""
NEIGHBOURS = 20
"""Rows up to this many places away in redshift are blended to distill."""


class ResMLPSettings(Schedule):
    """Settings of the residual network."""

    epochs: int = Field(40, ge=1)
    batch: int = Field(256, ge=1)
    lr: float = Field(4e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    ema: float = Field(0.998, ge=0, lt=1)
    patience: int = Field(10, ge=1)
    look_every: int = Field(2, ge=1)
    members: int = Field(4, ge=1)
    """Networks whose densities are averaged; each has its own start, row order and noise."""
    width: int = Field(256, ge=8)
    blocks: int = Field(3, ge=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    noise: float = Field(0.5, ge=0)
    """Fluxes are drawn again in every step from their errors times this."""
    drop: float = Field(0.05, ge=0, le=1)
    """Share of the rows of a step that lose bands."""
    smooth: float = Field(0.005, ge=0)
    """Standard deviation, in 1 + z, that a label is spread over."""
    crps: float = Field(1.0, ge=0)
    """Weight of the CRPS beside the cross-entropy."""
    distill: bool = True
    """Train one network on the densities of all and keep that one alone."""
    distill_width: int = Field(192, ge=8)
    """Width of that network."""
    distill_epochs: int = Field(80, ge=1)
    extra: tuple[str, ...] = ()
    """Inputs beside the photometry: `ebv` or names of the survey's columns.extra."""


class ResidualEnsemble(Model):
    """Density as a softmax over the points of the redshift grid."""

    Settings = ResMLPSettings
    min_train = 200

    settings: ResMLPSettings

    def __init__(self, settings: ResMLPSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.features = Luptitudes(len(context.bands), len(settings.extra))

    def fit(self, train: Labelled, valid: Labelled, device: torch.device, say: Callable[[str], None]) -> dict[str, Any]:
        s, grid = self.settings, self.context.grid
        train, valid = train.inside(grid), valid.inside(grid)
        fluxes = Fluxes.of(train.photometry, s.extra, device)
        self.features.to(device).fit(fluxes)
        valid_inputs = self.features(Fluxes.of(valid.photometry, s.extra, device))
        valid_z = torch.as_tensor(valid.z, dtype=torch.float32, device=device)

        def score(network: nn.Module) -> float:
            return mean_crps(grid.normalize(_probability(network, valid_inputs)), valid_z, grid)

        self.network, facts = self._train_members(train, fluxes, score, say)
        if s.distill:
            self.network, facts["distilled"] = self._distill(self.network, train, fluxes, score, say)
        self.to(device)
        return facts

    def _train_members(
        self, rows: Labelled, fluxes: Fluxes, score: Callable[[nn.Module], float], say: Callable[[str], None]
    ) -> tuple[ResidualMLP, dict[str, Any]]:
        """The ensemble, trained on spectroscopic redshifts."""
        s, grid, device = self.settings, self.context.grid, fluxes.flux.device
        network, generator = self._start(s.members, s.width, s.dropout, self.context.seed, device)
        z = torch.as_tensor(rows.z, dtype=torch.float32, device=device)
        weight = torch.as_tensor(rows.weight / rows.weight.mean(), dtype=torch.float32, device=device)
        label = soft_labels(z, grid, s.smooth)

        def loss(network: nn.Module, chosen: Tensor) -> Tensor:
            drawn = fluxes.rows(chosen).resampled(s.noise, generator).dropped(s.drop, generator)
            logits = network(self.features(drawn)).float()
            value = cross_entropy(logits, label[chosen])
            if s.crps:
                value = value + s.crps * crps_of_probabilities(logits.softmax(-1), z[chosen], grid)
            return (value * weight[chosen]).mean(-1).sum()

        facts = train(
            network, len(rows), s.members, loss, score, s, self.context.seed, say,
            watch=self.watch, phase="ensemble", generators=(generator,),
        )  # fmt: skip
        return network, facts

    def _distill(
        self,
        teacher: ResidualMLP,
        rows: Labelled,
        fluxes: Fluxes,
        score: Callable[[nn.Module], float],
        say: Callable[[str], None],
    ) -> tuple[ResidualMLP, dict[str, Any]]:
        """One network that answers as the ensemble does.

        It is asked about blends of training rows of nearly the same redshift, redrawn from their errors: on the
        training rows themselves the ensemble knows the answer too well to teach what it would say of a new row.
        """
        s = self.settings
        say(f"distilling {s.members} networks of width {s.width} into one of {s.distill_width}")
        answers = Applied(teacher)
        student, generator = self._start(1, s.distill_width, 0.0, self.context.seed + 1, fluxes.flux.device)

        device = fluxes.flux.device
        by_redshift = torch.from_numpy(np.argsort(rows.z, kind="stable")).to(device)
        rank = by_redshift.argsort()

        def loss(network: nn.Module, chosen: Tensor) -> Tensor:
            steps = torch.randint(-NEIGHBOURS, NEIGHBOURS + 1, chosen.shape, generator=generator, device=device)
            partner = by_redshift[(rank[chosen] + steps).clamp(0, len(rank) - 1)]
            drawn = fluxes.rows(chosen).blended(fluxes.rows(partner), generator)
            drawn = drawn.resampled(1.0, generator).dropped(s.drop, generator)
            inputs = self.features(drawn)
            with torch.no_grad():
                answer = answers.probability(inputs[0])
            return cross_entropy(network(inputs).float(), answer).mean(-1).sum()

        schedule = s.model_copy(update={"epochs": s.distill_epochs, "patience": s.distill_epochs, "weight_decay": 0.0})
        facts = train(
            student, len(rows), 1, loss, score, schedule, self.context.seed + 1, say,
            watch=self.watch, phase="distilled", generators=(generator,),
        )  # fmt: skip
        return student, facts

    def _start(
        self, members: int, width: int, dropout: float, seed: int, device: torch.device
    ) -> tuple[ResidualMLP, torch.Generator]:
        """An untrained network and the generator of its noise."""
        torch.manual_seed(seed)
        size = self.context.grid.size
        network = ResidualMLP(members, self.features.size, width, self.settings.blocks, size, dropout).to(device)
        return network, torch.Generator(device).manual_seed(seed)

    @torch.inference_mode()
    def predict(self, batch: Photometry) -> Tensor:
        fluxes = Fluxes.of(batch, self.settings.extra, self.device)
        density = torch.empty(len(batch), self.context.grid.size, device=self.device)
        for start in range(0, len(batch), ROWS):
            inputs = self.features(fluxes.rows(slice(start, start + ROWS)))
            density[start : start + ROWS] = self.context.grid.normalize(self._applied.probability(inputs))
        return density

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"features.{key}": value for key, value in self.features.state_dict().items()}
        tensors |= {f"network.{key}": value for key, value in self.network.state_dict().items()}
        return tensors, {}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        members, inputs, width = tensors["network.stem.weight"].shape
        self.network = ResidualMLP(members, inputs, width, self.settings.blocks, self.context.grid.size)
        for prefix, module in (("features.", self.features), ("network.", self.network)):
            part = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            module.load_state_dict(part)
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.features.to(device)
        self._applied = Applied(self.network.to(device).eval())


def _probability(network: nn.Module, inputs: Tensor) -> Tensor:
    """(n, size): softmax of every member's answer to the same inputs (n, inputs), averaged."""
    assert isinstance(network, ResidualMLP)
    return network(inputs.expand(network.members, *inputs.shape)).float().softmax(-1).mean(0)


MODEL = ResidualEnsemble
