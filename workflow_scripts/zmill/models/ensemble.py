"""The flagship for tables: residual networks, neighbors under a learned metric and color-matched neighbors, averaged, then
distilled into one network.

The three err differently: a softmax interpolates, neighbors keep the lines and clusters of the training redshifts, and what
errors do to the colors is learned by the first two and known to the third. One small network learns to answer as their average
does, so that a survey is predicted at the cost of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from zmill.metrics import SMALLEST_DENSITY
from zmill.models import base
from zmill.models.applied import Applied, Range, ranges_of
from zmill.models.base import Labelled, Model, evenly
from zmill.models.cmnn import CMNNSettings, ColorNeighbours
from zmill.models.features import Fluxes, Luptitudes
from zmill.models.knn import JUDGED
from zmill.models.losses import cross_entropy, mean_crps
from zmill.models.moved import moved
from zmill.models.nca import MetricNeighbors, NCASettings
from zmill.models.network import Residual, ResidualMLP, Schedule, load_tensors, tensors_of, train
from zmill.models.resmlp import ROWS, ResidualEnsemble, ResMLPSettings, probability
from zmill.pdf.calibration import Calibration
from zmill.pdf.values import density_at
from zmill.sections import Text
from zmill.slices import in_cache, slices
from zmill.survey.photometry import Photometry

PARTNERS = 20
"""Rows up to this many places away in redshift are blended."""
BLEND = 0.5
"""Largest part of a galaxy's light that is replaced in a blend."""
NOISE = 0.5
"""Blends are drawn again from their errors times this."""
ENOUGH = 400_000
"""Galaxies that the distilled network learns from, unless there are even more training rows."""
MEASURED = 20_000
"""Of them, those that the ranges of the numbers inside the distilled network are taken of."""
PER_ROW = 40
"""Of a training row, at most."""
NETWORKS = (1 / 2, 2 / 3, 5 / 6)
"""Shares of the residual networks that are tried."""
MATCHED = (0, 1 / 2)
"""Shares of the color-matched neighbors in the rest that are tried; the learned neighbors have what is left."""
POWERS = (1.0, 1.25, 1.5)
"""Powers of a calibration that averages are judged with."""


class Distilled(Residual, Schedule):
    """The network that answers as the ensemble does, and how it is trained."""

    width: int = Field(256, ge=8, le=2**14)
    blocks: int = Field(1, ge=0, le=100)
    waves: int = Field(0, ge=0, le=1000)
    epochs: int = Field(12, ge=1, le=100_000)
    """Passes over the galaxies that it is asked about, of which there are 40 of every training row."""
    lr: float = Field(4e-3, gt=0, le=10)
    ema: float = Field(0.998, ge=0, lt=1)
    drop: float = Field(0.15, ge=0, le=1)
    """Share of them that lose bands."""


class EnsembleSettings(base.Settings):
    """Settings of the ensemble."""

    networks: ResMLPSettings = ResMLPSettings.model_validate({})
    """The residual networks: the keys of `resmlp`."""
    neighbors: NCASettings = NCASettings.model_validate({})
    """The learned neighbors: the keys of `nca`."""
    matched: CMNNSettings = CMNNSettings.model_validate({})
    """The color-matched neighbors: the keys of `cmnn`."""
    distill: bool = True
    """Train one network on the densities of all and keep that one alone."""
    distilled: Distilled = Distilled.model_validate({})
    """That network."""
    extra: tuple[Text, ...] = ()
    """Inputs beside the photometry: `ebv` or names of the survey's columns.extra."""

    @model_validator(mode="after")
    def _same_inputs(self) -> EnsembleSettings:
        if self.networks.extra or self.neighbors.extra:
            raise ValueError("give `extra` once, beside networks and neighbors: they take the same inputs")
        return self


class Ensemble(Model):
    """Weighted mean of the densities of `resmlp`, `nca` and `cmnn`, or one network that was taught by it."""

    Settings = EnsembleSettings
    min_train = 200

    settings: EnsembleSettings

    def fit(self, train: Labelled, valid: Labelled, device: torch.device, say: Callable[[str], None]) -> dict[str, Any]:
        grid = self.context.grid
        train, valid = train.inside(grid), valid.inside(grid)
        self._start()
        facts: dict[str, Any] = {
            "networks": self.networks.fit(train, valid, device, say),
            "neighbors": self.neighbors.fit(train, valid, device, say),
        }
        facts["matched"] = self.matched.fit(train.rows(self.neighbors.rows.cpu().numpy()), valid, device, say)
        fluxes = Fluxes.of(valid.photometry, self.settings.extra, device)
        valid_z = torch.as_tensor(valid.z, dtype=torch.float32, device=device)
        self.shares = self._best_shares(fluxes, valid_z)
        facts["shares"] = dict(zip(self._parts(), self.shares, strict=True))
        say("shares in the average: " + ", ".join(f"{name} {share:.2f}" for name, share in facts["shares"].items()))
        if self.settings.distill:

            def score(network: nn.Module) -> float:
                found = probability(network, self.networks.features(fluxes))
                return mean_crps(grid.normalize(found), valid_z, grid)

            facts["distilled"] = self._distill(train, score, device, say)
        self.to(device)
        return facts

    def refit(self, rows: Labelled, device: torch.device, say: Callable[[str], None]) -> None:
        rows = rows.inside(self.context.grid)
        self.networks.refit(rows, device, say)
        self.neighbors.refit(rows, device, say)
        self.matched.refit(rows.rows(self.neighbors.rows.cpu().numpy()), device, say)
        if self.settings.distill:
            self._distill(rows, None, device, say)
        self.to(device)

    def _start(self) -> None:
        """Untrained teachers, which take the ensemble's further inputs and tell its watch."""
        s = self.settings
        self.networks = ResidualEnsemble(s.networks.model_copy(update={"extra": s.extra}), self.context)
        self.neighbors = MetricNeighbors(s.neighbors.model_copy(update={"extra": s.extra}), self.context)
        self.networks.watch = self.neighbors.watch = self.watch
        self.matched = ColorNeighbours(s.matched, self.context)

    def _densities(self, fluxes: Fluxes, without: Tensor | None = None) -> list[Tensor]:
        """(n, grid.size) densities of each part, each row without some of the neighbors, which both kinds have in common."""
        return [
            self.networks.densities(fluxes),
            self.neighbors.densities(fluxes, without),
            self.matched.densities(fluxes, without),
        ]

    def _teach(self, fluxes: Fluxes, without: Tensor | None = None) -> Tensor:
        """(n, grid.size) weighted mean densities of all parts."""
        mean = torch.zeros(len(fluxes.flux), self.context.grid.size, device=fluxes.flux.device)
        for share, density in zip(self.shares, self._densities(fluxes, without), strict=True):
            mean.add_(density, alpha=share)
        return mean

    @torch.inference_mode()
    def _best_shares(self, fluxes: Fluxes, z: Tensor) -> list[float]:
        """Shares of the parts in the average whose log score at redshifts (n,) is highest, once calibrated by a power.

        Stacking (Yao et al. 2018) of densities that are sharpened after: an average is wider than what it is made of, and
        judged as it is it would have to be of one part. More freedom than a few shares follows the noise of a thousand
        validation rows.
        """
        grid, rows = self.context.grid, torch.from_numpy(evenly(len(z), JUDGED)).to(z.device)
        found = torch.stack(self._densities(fluxes.rows(rows)))

        def log_score(shares: list[float]) -> float:
            mean = torch.einsum("p,pnz->nz", torch.tensor(shares, device=found.device), found)
            there = (density_at(Calibration(power)(mean, grid), grid, z[rows]) for power in POWERS)
            return max(float(density.clamp_min(SMALLEST_DENSITY).log().mean()) for density in there)

        tried = ([own, (1 - own) * (1 - matched), (1 - own) * matched] for own in NETWORKS for matched in MATCHED)
        return max(tried, key=log_score)

    def _distill(
        self,
        rows: Labelled,
        score: Callable[[nn.Module], float] | None,
        device: torch.device,
        say: Callable[[str], None],
    ) -> dict[str, Any]:
        """One network that answers as the ensemble does.

        It is asked about blends of training rows of nearly the same redshift, redrawn from their errors, and neither of
        the two is a neighbor then, and where there are such as often about galaxies that are training rows moved in redshift: on
        the training rows themselves the ensemble knows the answer too well to teach what it would say of a new row.

        rows : all of them on the grid.
        """
        s, seed = self.settings, self.context.seed + 1
        generator = torch.Generator(device).manual_seed(seed)
        say(
            f"distilling into one network of width {s.distilled.width}: asking the ensemble about galaxies made of {len(rows):,}"
        )
        inputs, answers = self._lessons(rows, device, generator)
        say(f"learning what it says of {len(inputs):,}")
        torch.manual_seed(seed)
        network = self._network(self.networks.features).to(device)

        def loss(network: nn.Module, chosen: Tensor) -> Tensor:
            return cross_entropy(network(inputs[chosen]).float(), answers[chosen].float()).mean(-1).sum()

        facts = train(
            network, len(inputs), 1, loss, score, s.distilled, seed, say, watch=self.watch,
            phase="distilled" if score else "distilled, refitted",
        )  # fmt: skip
        self.features, self.network = self.networks.features, network
        self.ranges: list[Range] | None = ranges_of(network, inputs[evenly(len(inputs), MEASURED)][None])
        return facts

    @torch.inference_mode()
    def _lessons(self, rows: Labelled, device: torch.device, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(lessons, inputs) of the network and (lessons, grid.size) probabilities that the ensemble gives them."""
        fluxes = Fluxes.of(rows.photometry, self.settings.extra, device)
        limits = fluxes.limits()
        count = max(len(rows), min(PER_ROW * len(rows), ENOUGH))
        elsewhere = 0 if self.networks.before is None else count // 2
        asked = chain(self._blends(rows, fluxes, count - elsewhere, generator), self._moved(rows, elsewhere, device))
        inputs, answers = [], []
        for drawn, without in asked:
            drawn = drawn.dropped(self.settings.distilled.drop, limits, generator)
            density = self._teach(drawn, without)
            inputs.append(self.networks.features(drawn))
            answers.append((density / density.sum(1, keepdim=True)).to(torch.bfloat16))
        return torch.cat(inputs).clone(), torch.cat(answers).clone()

    def _blends(
        self, rows: Labelled, fluxes: Fluxes, count: int, generator: torch.Generator
    ) -> Iterator[tuple[Fluxes, Tensor]]:
        """Blends of training rows, some at a time, and the places (n, 2) in the bank of the two rows of each."""
        device = fluxes.flux.device
        by_redshift = torch.from_numpy(np.argsort(rows.z, kind="stable")).to(device)
        rank = by_redshift.argsort()
        place = torch.full((len(rows),), -1, device=device)
        place[self.neighbors.rows] = torch.arange(len(self.neighbors.rows), device=device)
        for part in torch.arange(count, device=device).split(ROWS):
            own = part % len(rows)
            steps = torch.randint(-PARTNERS, PARTNERS + 1, own.shape, generator=generator, device=device)
            partner = by_redshift[(rank[own] + steps).clamp(0, len(rank) - 1)]
            drawn = fluxes.rows(own).blended(fluxes.rows(partner), BLEND, generator)
            yield drawn.resampled(NOISE, generator), place[torch.stack([own, partner], 1)]

    def _moved(self, rows: Labelled, count: int, device: torch.device) -> Iterator[tuple[Fluxes, None]]:
        """Galaxies made of training rows, some at a time; nothing is kept from being their neighbor."""
        if count:
            made = moved(rows, self.context, count, self.context.seed + 1)
            for part in slices(count, ROWS):
                yield Fluxes.of(made.photometry[part], self.settings.extra, device), None

    def _network(self, features: Luptitudes) -> ResidualMLP:
        return ResidualMLP(1, features.size, features.plain, self.context.grid.size, self.settings.distilled)

    @torch.inference_mode()
    def predict(self, batch: Photometry) -> Tensor:
        fluxes, grid = Fluxes.of(batch, self.settings.extra, self.device), self.context.grid
        if not self.settings.distill:
            return self._teach(fluxes)
        density = torch.empty(len(batch), grid.size, device=self.device)
        for piece in in_cache(len(batch), ROWS, self.device):
            inputs = self.features(fluxes.rows(piece))
            grid.normalize(self._applied.probability(inputs), out=density[piece])
        return density

    @torch.inference_mode()
    def log_density(self, batch: Photometry) -> Tensor:
        if not self.settings.distill:
            return super().log_density(batch)
        return self._applied.log_probability(self.features.of(batch, self.settings.extra))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        if self.settings.distill:
            return tensors_of(features=self.features, network=self.network), {"ranges": self.ranges}
        parts = {name: model.state() for name, model in self._parts().items()}
        tensors = {f"{name}.{key}": value for name, (found, _) in parts.items() for key, value in found.items()}
        return tensors, {"shares": self.shares, **{name: facts for name, (_, facts) in parts.items()}}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        if self.settings.distill:
            self.features = Luptitudes(len(self.context.bands), len(self.settings.extra))
            self.network = self._network(self.features)
            load_tensors(tensors, features=self.features, network=self.network)
            self.ranges = facts.get("ranges")
        else:
            self._start()
            self.shares = [float(share) for share in facts["shares"]]
            for name, model in self._parts().items():
                prefix = f"{name}."
                own = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
                model.restore(own, facts[name])
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        if self.settings.distill:
            self.features.to(device)
            self._applied = Applied(self.network.to(device).eval(), self.ranges)
        else:
            for model in self._parts().values():
                model.to(device)

    def _parts(self) -> dict[str, Model]:
        return {"networks": self.networks, "neighbors": self.neighbors, "matched": self.matched}


MODEL = Ensemble
