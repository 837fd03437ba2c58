"""The flagship for tables: residual networks and color-matched neighbors, averaged, then distilled into one network.

They err differently: a softmax interpolates, and what errors do to the colors is learned by the networks and known to the
neighbors. Where no moved galaxies can be made, neighbors under a learned metric are the third part: they keep the lines and
clusters of the training redshifts. One small network learns to answer as the average does, so that a survey is predicted at the
cost of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from zmill.chunks import cache_sized_chunks, row_chunks
from zmill.inputs.base import LabelledBatch, evenly
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.features import Fluxes, Luptitudes
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.metrics import SMALLEST_DENSITY
from zmill.models import base
from zmill.models.base import Model
from zmill.models.cmnn import CMNNSettings, ColorNeighbors
from zmill.models.knn import JUDGED
from zmill.models.nca import MetricNeighbors, NCASettings, some_of
from zmill.models.resmlp import ROWS, ResidualEnsemble, ResMLPSettings, probability
from zmill.networks.inference import Applied, Range, ranges_of
from zmill.networks.losses import cross_entropy, mean_crps
from zmill.networks.network import Residual, ResidualMLP, Schedule, load_tensors, tensors_of, train
from zmill.networks.parallel import Lanes, lanes
from zmill.pdf.calibration import Calibration
from zmill.pdf.values import density_at
from zmill.sections import Text

PARTNERS = 20
"""Rows up to this many places away in redshift are blended."""
BLEND = 0.5
"""Largest part of a galaxy's light that is replaced in a blend."""
NOISE = 0.5
"""Blends are drawn again from their errors times this."""
LESSONS = 300_000
"""Galaxies that the distilled network is taught on; as many as training rows where these are more, up to `MOST`."""
MOST = 400_000
PER_ROW = 50
"""Of a training row, at most."""
MEASURED = 20_000
"""Of them, those that the ranges of the numbers inside the distilled network are taken of."""
NETWORKS = (1 / 2, 2 / 3, 5 / 6)
"""Shares of the residual networks that are tried."""
MATCHED = (0, 1 / 2)
"""Shares of the color-matched neighbors in the rest that are tried where there are learned neighbors, which have what is left."""
POWERS = (1.0, 1.25, 1.5)
"""Powers of a calibration that averages are judged with."""


class Networks(ResMLPSettings):
    """The residual networks: one, not several, where it is pre-trained, and fewer passes over very many rows than `resmlp`."""

    members_after: int = Field(1, ge=1, le=100)
    most_rows: int = Field(4_000_000, ge=1, le=10**12)


class Distilled(Residual, Schedule):
    """The network that answers as the average does, and how it is trained."""

    width: int = Field(256, ge=8, le=2**14)
    blocks: int = Field(1, ge=0, le=100)
    waves: int = Field(0, ge=0, le=1000)
    epochs: int = Field(5, ge=1, le=100_000)
    """Passes over the galaxies that it is taught on."""
    batch: int = Field(512, ge=1, le=2**20)
    lr: float = Field(6e-3, gt=0, le=10)
    epochs_after: int = Field(2, ge=1, le=100_000)
    """`epochs` and `lr` when it is taught again by teachers that were fitted on all rows."""
    lr_after: float = Field(3e-3, gt=0, le=10)
    ema: float = Field(0.998, ge=0, lt=1)
    drop: float = Field(0.15, ge=0, le=1)
    """Share of the galaxies that lose bands."""


class EnsembleSettings(base.Settings):
    """Settings of the ensemble."""

    networks: Networks = Networks.model_validate({})
    """The residual networks: the keys of `resmlp`."""
    neighbors: NCASettings = NCASettings.model_validate({})
    """The learned neighbors: the keys of `nca`. They take part where no galaxies are moved."""
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


Question: TypeAlias = tuple[Fluxes, Tensor | None]
"""Galaxies, and the places (n, 2) in the bank of rows that are no neighbors of each; None: all are."""


class Ensemble(Model):
    """Weighted mean of the densities of `resmlp`, `cmnn` and, without moved galaxies, `nca`; or one network distilled from it."""

    Settings = EnsembleSettings
    quick = {
        "networks": ResidualEnsemble.quick,
        "neighbors": MetricNeighbors.quick,
        "distilled": {"epochs": 1, "width": 32, "blocks": 1, "waves": 0, "embedding": 2, "batch": 512},
    }
    min_train = 200

    settings: EnsembleSettings
    neighbors: MetricNeighbors | None
    """None where galaxies are moved, or training rows are very many."""

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        grid = self.context.grid
        train, valid = train.inside(grid), valid.inside(grid)
        self._start()
        self.networks.spare = self._lessons_of(len(train)) // 2 if self.settings.distill else 0
        facts: dict[str, Any] = {"networks": self.networks.fit(train, valid, device, log)}
        if self.networks.made is None and len(train) < self.settings.networks.moved:
            self.neighbors = self._neighbors()
            facts["neighbors"] = self.neighbors.fit(train, valid, device, log)
        facts["matched"] = self.matched.fit(self._bank(train), valid, device, log)
        judged = valid.rows(evenly(len(valid), JUDGED))
        fluxes = Fluxes.of(judged.batch, self.settings.extra, device)
        valid_z = torch.as_tensor(judged.z, dtype=torch.float32, device=device)
        with lanes(device) as ways:
            self.shares = self._best_shares(fluxes, valid_z, ways)
        facts["shares"] = dict(zip(self._parts(), self.shares, strict=True))
        log("shares in the average: " + ", ".join(f"{name} {share:.2f}" for name, share in facts["shares"].items()))
        if self.settings.distill:

            def score(network: nn.Module) -> float:
                found = probability(network, self.networks.features(fluxes))
                return mean_crps(grid.normalize(found), valid_z, grid)

            facts["distilled"] = self._distill(train, score, device, log)
        self.to(device)
        return facts

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        rows = rows.inside(self.context.grid)
        self.networks.refit(rows, device, log)
        if self.neighbors:
            self.neighbors.refit(rows, device, log)
        self.matched.refit(self._bank(rows), device, log)
        if self.settings.distill:
            self._distill(rows, None, device, log)
        self.to(device)

    def _start(self) -> None:
        """Untrained teachers, which take the ensemble's further inputs and report to its callback."""
        s = self.settings
        self.networks = ResidualEnsemble(s.networks.model_copy(update={"extra": s.extra}), self.context)
        self.networks.callback = self.callback
        self.neighbors = None
        self.matched = ColorNeighbors(s.matched, self.context)

    def _neighbors(self) -> MetricNeighbors:
        s = self.settings
        neighbors = MetricNeighbors(s.neighbors.model_copy(update={"extra": s.extra}), self.context)
        neighbors.callback = self.callback
        return neighbors

    def _bank(self, rows: LabelledBatch) -> LabelledBatch:
        """The rows that are neighbors of others; of very many some, the same for both kinds of neighbors."""
        self.bank = some_of(len(rows), self.settings.neighbors.bank, self.context.seed)
        return rows.rows(self.bank.numpy())

    def _average(self, shares: Sequence[float], fluxes: Fluxes, without: Tensor | None = None) -> Tensor:
        """(n, grid.size) mean densities of all parts, weighted by shares; a part without a share is not asked."""
        networks, *others = shares
        mean = self.networks.densities(fluxes).mul_(networks)
        for share, part in zip(others, list(self._parts().values())[1:], strict=True):
            if share:
                assert isinstance(part, MetricNeighbors | ColorNeighbors)
                mean.add_(part.densities(fluxes, without), alpha=share)
        return mean

    def _best_shares(self, fluxes: Fluxes, z: Tensor, ways: Lanes) -> list[float]:
        """Shares of the parts in the average whose log score at redshifts (n,) is highest, once calibrated by a power.

        Stacking (Yao et al. 2018) of densities that are sharpened after: an average is wider than what it is made of, and
        judged as it is it would have to be of one part. More freedom than a few shares follows the noise of a thousand
        validation rows.
        """
        grid = self.context.grid
        parts = list(self._parts().values())
        pieces = [fluxes.rows(some) for some in torch.arange(len(z), device=z.device).split(ROWS // 4)]
        found = [torch.cat(ways.map(partial(_densities, part), pieces)) for part in parts]

        @torch.inference_mode()
        def log_score(shares: list[float]) -> float:
            mean = torch.zeros_like(found[0])
            for share, density in zip(shares, found, strict=True):
                mean.add_(density, alpha=share)
            there = (density_at(Calibration(power)(mean, grid), grid, z) for power in POWERS)
            return max(float(density.clamp_min(SMALLEST_DENSITY).log().mean()) for density in there)

        if len(parts) == 2:
            tried = [[own, 1 - own] for own in NETWORKS]
        else:
            tried = [[own, (1 - own) * (1 - matched), (1 - own) * matched] for own in NETWORKS for matched in MATCHED]
        return max(tried, key=log_score)

    def _distill(
        self,
        rows: LabelledBatch,
        score: Callable[[nn.Module], float] | None,
        device: torch.device,
        log: Callable[[str], None],
    ) -> dict[str, Any]:
        """One network that answers as the average does; taught again by other teachers, it starts from what it was.

        It is taught on blends of training rows of nearly the same redshift, redrawn from their errors, of which neither is a
        neighbor, and, where there are such, as often on moved galaxies: on the training rows themselves the teachers know the
        answer too well to teach what they would say of a new row.

        rows : all of them on the grid.
        score : of the network on validation rows; None where teachers were fitted again.
        """
        s, seed = self.settings.distilled, self.context.seed + 1
        generator = torch.Generator(device).manual_seed(seed)
        log(f"distilling into one network of width {s.width}: asking the teachers about galaxies made of {len(rows):,}")
        with lanes(device) as ways:
            inputs, answers = self._lessons(rows, device, generator, ways)
        log(f"teaching it their answers for {len(inputs):,}")
        torch.manual_seed(seed)
        if score:
            self.features, self.network = self.networks.features, self._network(self.networks.features).to(device)
        else:
            s = s.model_copy(update={"epochs": s.epochs_after, "lr": s.lr_after})

        def loss(network: nn.Module, chosen: Tensor, _: torch.Generator) -> Tensor:
            return cross_entropy(network(inputs[chosen]).float(), answers[chosen].float()).mean(-1).sum()

        facts = train(
            self.network, len(inputs), 1, loss, score, s, seed, log, callback=self.callback,
            phase="distilled" if score else "distilled, refitted", parallel=True,
        )  # fmt: skip
        self.ranges: list[Range] | None = ranges_of(self.network, inputs[evenly(len(inputs), MEASURED)][None])
        return facts

    def _lessons(
        self, rows: LabelledBatch, device: torch.device, generator: torch.Generator, ways: Lanes
    ) -> tuple[Tensor, Tensor]:
        """(lessons, inputs) of the network and (lessons, grid.size) probabilities that the teachers give them.

        Neighbors cost more than networks: they are asked about every second galaxy, and count twice there. The network that
        learns from both answers learns their mean.
        """
        fluxes = Fluxes.of(rows.batch, self.settings.extra, device)
        limits = fluxes.limits()
        count = self._lessons_of(len(rows))
        made = self.networks.made
        elsewhere = 0 if made is None else min(count // 2, len(made))
        asked = chain(self._blends(rows, fluxes, count - elsewhere, generator), self._moved(made, elsewhere, device))
        lost = [(drawn.dropped(self.settings.distilled.drop, limits, generator), without) for drawn, without in asked]
        alone, *others = self.shares
        often = [2 * alone - 1, *(2 * share for share in others)]

        @torch.inference_mode()
        def lesson(question: Question) -> tuple[Tensor, Tensor]:
            drawn, without = question
            density = self.networks.densities(drawn)
            some = slice(None, None, 2)
            density[some] = self._average(often, drawn.rows(some), None if without is None else without[some])
            density.div_(density.sum(1, keepdim=True))
            return self.networks.features(drawn), density.to(torch.bfloat16)

        inputs, answers = zip(*ways.map(lesson, lost), strict=True)
        return torch.cat(inputs).clone(), torch.cat(answers).clone()

    def _lessons_of(self, rows: int) -> int:
        """Galaxies that the distilled network is taught on, by the number of training rows."""
        return min(PER_ROW * rows, max(LESSONS, min(rows, MOST)))

    def _blends(
        self, rows: LabelledBatch, fluxes: Fluxes, count: int, generator: torch.Generator
    ) -> Iterator[Question]:
        """Blends of training rows, some at a time, and the places (n, 2) in the bank of the two rows of each."""
        device = fluxes.flux.device
        by_redshift = torch.from_numpy(np.argsort(rows.z, kind="stable")).to(device)
        rank = by_redshift.argsort()
        place = torch.full((len(rows),), -1, device=device)
        place[self.bank.to(device)] = torch.arange(len(self.bank), device=device)
        for part in torch.arange(count, device=device).split(ROWS):
            own = part % len(rows)
            steps = torch.randint(-PARTNERS, PARTNERS + 1, own.shape, generator=generator, device=device)
            partner = by_redshift[(rank[own] + steps).clamp(0, len(rank) - 1)]
            drawn = fluxes.rows(own).blended(fluxes.rows(partner), BLEND, generator)
            yield drawn.resampled(NOISE, generator), place[torch.stack([own, partner], 1)]

    def _moved(self, made: Photometry | None, count: int, device: torch.device) -> Iterator[Question]:
        """Moved galaxies that the networks were not trained on, some at a time; nothing is kept from being their neighbor."""
        if made is not None:
            for part in row_chunks(count, ROWS):
                yield Fluxes.of(made[part], self.settings.extra, device), None

    def _network(self, features: Luptitudes) -> ResidualMLP:
        return ResidualMLP(1, features.size, features.plain, self.context.grid.size, self.settings.distilled)

    @torch.inference_mode()
    def predict(self, batch: Photometry) -> Tensor:
        fluxes, grid = Fluxes.of(batch, self.settings.extra, self.device), self.context.grid
        if not self.settings.distill:
            return self._average(self.shares, fluxes)
        density = torch.empty(len(batch), grid.size, device=self.device)
        for piece in cache_sized_chunks(len(batch), ROWS, self.device):
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
            self.features = Luptitudes(len(self.context.of(PhotometryKind).bands), len(self.settings.extra))
            self.network = self._network(self.features)
            load_tensors(tensors, features=self.features, network=self.network)
            self.ranges = facts.get("ranges")
        else:
            self._start()
            if "neighbors" in facts:
                self.neighbors = self._neighbors()
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

    def _parts(self) -> dict[str, ResidualEnsemble | MetricNeighbors | ColorNeighbors]:
        neighbors = {"neighbors": self.neighbors} if self.neighbors else {}
        return {"networks": self.networks, **neighbors, "matched": self.matched}


@torch.inference_mode()
def _densities(part: ResidualEnsemble | MetricNeighbors | ColorNeighbors, fluxes: Fluxes) -> Tensor:
    return part.densities(fluxes)


MODEL = Ensemble
