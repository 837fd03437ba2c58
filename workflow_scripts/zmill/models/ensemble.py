"""The flagship: residual networks and color-matched neighbors, averaged, then distilled into one network.

The parts make different errors: the networks interpolate and learn the effect of photometric errors on colors, while
color-matched neighbors compute this effect. Without synthetic training galaxies, nearest neighbors under a learned metric are a
third part, because they preserve narrow structure in the training redshifts. One small network is trained to reproduce the
average, so that a prediction costs as much as that of one network.
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
from zmill.inputs.base import LabelledBatch
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.features import Fluxes, Luptitudes
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.metrics import SMALLEST_DENSITY
from zmill.models import base
from zmill.models.base import Model, selection_rows
from zmill.models.cmnn import CMNNSettings, ColorNeighbors
from zmill.models.nca import MetricNeighbors, NCASettings, random_subset
from zmill.models.resmlp import ROWS, ResidualEnsemble, ResMLPSettings, probability
from zmill.networks.distillation import BLEND, NOISE, Student, distillation_rows, partners, train_student
from zmill.networks.inference import Applied, Range
from zmill.networks.losses import mean_crps
from zmill.networks.network import ResidualMLP, load_tensors, tensors_of
from zmill.networks.parallel import Lanes, lanes
from zmill.pdf.calibration import Calibration
from zmill.pdf.values import density_at
from zmill.sections import Text

NETWORK_WEIGHTS = (1 / 2, 2 / 3, 5 / 6)
"""Candidate stacking weights of the residual networks."""
COLOR_WEIGHTS = (0, 1 / 2)
"""Candidate weights of the color-matched neighbors as fractions of the rest, if there are learned neighbors, which have the remainder."""
POWERS = (1.0, 1.25, 1.5)
"""Powers of a calibration with which averages are scored."""


class Networks(ResMLPSettings):
    """Settings of the residual networks. Defaults differ from `resmlp`: one pre-trained network, and fewer epochs for many rows."""

    finetuned_members: int = Field(1, ge=1, le=100)
    max_rows: int = Field(4_000_000, ge=1, le=10**12)


class Distilled(Student):
    """Settings of the distilled network and of its training."""

    band_dropout: float = Field(0.15, ge=0, le=1)
    """Fraction of the distillation set from which bands are dropped."""


class EnsembleSettings(base.Settings):
    """Settings of the ensemble."""

    networks: Networks = Networks.model_validate({})
    """The residual networks: the keys of `resmlp`."""
    neighbors: NCASettings = NCASettings.model_validate({})
    """The learned neighbors: the keys of `nca`. They are a part if there are no synthetic training galaxies."""
    color_neighbors: CMNNSettings = CMNNSettings.model_validate({})
    """The color-matched neighbors: the keys of `cmnn`."""
    distill: bool = True
    """Whether one network is trained to reproduce the average, and only that network is saved."""
    distilled: Distilled = Distilled.model_validate({})
    """The distilled network."""
    extra: tuple[Text, ...] = ()
    """Inputs in addition to the photometry, of all parts: `ebv` or names of the survey's columns.extra."""

    @model_validator(mode="after")
    def _same_inputs(self) -> EnsembleSettings:
        if self.networks.extra or self.neighbors.extra:
            raise ValueError("give `extra` once, next to `networks` and `neighbors`: they take the same inputs")
        return self


Galaxies: TypeAlias = tuple[Fluxes, Tensor | None]
"""Galaxies of the distillation set, and for each the indices (n, 2) in the neighbor table of rows that are excluded as neighbors; None: none are."""


class Ensemble(Model):
    """Weighted mean of the densities of `resmlp`, `cmnn` and, without synthetic galaxies, `nca`; or one network distilled from it."""

    Settings = EnsembleSettings
    quick = {
        "networks": ResidualEnsemble.quick,
        "neighbors": MetricNeighbors.quick,
        "distilled": {"epochs": 1, "width": 32, "blocks": 1, "frequencies": 0, "embedding": 2, "batch": 512},
    }
    min_train = 200

    settings: EnsembleSettings
    neighbors: MetricNeighbors | None
    """None with synthetic training galaxies, or with more training rows than these."""

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        grid = self.context.grid
        train, valid = train.inside(grid), valid.inside(grid)
        self._start()
        self.networks.unseen_galaxies = distillation_rows(len(train)) // 2 if self.settings.distill else 0
        facts: dict[str, Any] = {"networks": self.networks.fit(train, valid, device, log)}
        if self.networks.unseen is None and len(train) < self.settings.networks.synthetic_galaxies:
            self.neighbors = self._neighbors()
            facts["neighbors"] = self.neighbors.fit(train, valid, device, log)
        facts["color_neighbors"] = self.color_neighbors.fit(self._neighbor_table(train), valid, device, log)
        judged = selection_rows(valid)
        fluxes = Fluxes.of(judged.batch, self.settings.extra, device)
        valid_z = torch.as_tensor(judged.z, dtype=torch.float32, device=device)
        with lanes(device) as ways:
            self.weights = self._stacking_weights(fluxes, valid_z, ways)
        facts["stacking_weights"] = dict(zip(self._parts(), self.weights, strict=True))
        log(
            "stacking weights: "
            + ", ".join(f"{name} {weight:.2f}" for name, weight in facts["stacking_weights"].items())
        )
        if self.settings.distill:

            def score(network: nn.Module) -> float:
                density = grid.normalize(probability(network, self.networks.features(fluxes)))
                return mean_crps(density, valid_z, grid)

            facts["distilled"] = self._distill(train, score, device, log)
        self.to(device)
        return facts

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        rows = rows.inside(self.context.grid)
        self.networks.refit(rows, device, log)
        if self.neighbors:
            self.neighbors.refit(rows, device, log)
        self.color_neighbors.refit(self._neighbor_table(rows), device, log)
        if self.settings.distill:
            self._distill(rows, None, device, log)
        self.to(device)

    def _start(self) -> None:
        """Make untrained teachers with the extra inputs and the callback of the ensemble."""
        s = self.settings
        self.networks = ResidualEnsemble(s.networks.model_copy(update={"extra": s.extra}), self.context)
        self.networks.callback = self.callback
        self.neighbors = None
        self.color_neighbors = ColorNeighbors(s.color_neighbors, self.context)

    def _neighbors(self) -> MetricNeighbors:
        s = self.settings
        neighbors = MetricNeighbors(s.neighbors.model_copy(update={"extra": s.extra}), self.context)
        neighbors.callback = self.callback
        return neighbors

    def _neighbor_table(self, rows: LabelledBatch) -> LabelledBatch:
        """The rows that are stored as neighbors, a random subset if there are many; both kinds of neighbors use the same."""
        self.neighbor_rows = random_subset(len(rows), self.settings.neighbors.neighbor_rows, self.context.seed)
        return rows.rows(self.neighbor_rows.numpy())

    def _average(self, weights: Sequence[float], fluxes: Fluxes, without: Tensor | None = None) -> Tensor:
        """(n, grid.size) weighted mean of the densities of all parts; parts of weight 0 are not computed."""
        networks, *others = weights
        mean = self.networks.densities(fluxes).mul_(networks)
        for weight, part in zip(others, list(self._parts().values())[1:], strict=True):
            if weight:
                assert isinstance(part, MetricNeighbors | ColorNeighbors)
                mean.add_(part.densities(fluxes, without), alpha=weight)
        return mean

    def _stacking_weights(self, fluxes: Fluxes, z: Tensor, ways: Lanes) -> list[float]:
        """The candidate weights of the parts with the highest log score at redshifts (n,), after calibration by a power.

        Stacking (Yao et al. 2018) of densities that are sharpened afterward. An average is wider than its parts: without
        calibration, the highest score would mostly be that of a single part. There are few candidates because free weights
        would fit the noise of some thousand validation rows.
        """
        grid = self.context.grid
        parts = list(self._parts().values())
        chunks = [fluxes.rows(rows) for rows in torch.arange(len(z), device=z.device).split(ROWS // 4)]
        densities = [torch.cat(ways.map(partial(_densities, part), chunks)) for part in parts]

        @torch.inference_mode()
        def log_score(weights: list[float]) -> float:
            mean = torch.zeros_like(densities[0])
            for weight, density in zip(weights, densities, strict=True):
                mean.add_(density, alpha=weight)
            at_z = (density_at(Calibration(power)(mean, grid), grid, z) for power in POWERS)
            return max(float(density.clamp_min(SMALLEST_DENSITY).log().mean()) for density in at_z)

        if len(parts) == 2:
            candidates = [[own, 1 - own] for own in NETWORK_WEIGHTS]
        else:
            candidates = [
                [own, (1 - own) * (1 - colors), (1 - own) * colors]
                for own in NETWORK_WEIGHTS
                for colors in COLOR_WEIGHTS
            ]
        return max(candidates, key=log_score)

    def _distill(
        self,
        rows: LabelledBatch,
        score: Callable[[nn.Module], float] | None,
        device: torch.device,
        log: Callable[[str], None],
    ) -> dict[str, Any]:
        """Train one network, the student, to reproduce the average of the teachers.

        On their training rows, the teachers are more confident than on new rows. The distillation set therefore consists of
        blends of training rows of similar redshift, which are excluded as neighbors, and of synthetic galaxies, if there
        are any, in equal numbers.

        rows : training rows on the grid.
        score : of the student on the validation rows; None: fine-tune the student, because its teachers were refitted.
        """
        seed = self.context.seed + 1
        generator = torch.Generator(device).manual_seed(seed)
        log(f"distillation: the teachers predict galaxies made from {len(rows):,} training rows")
        with lanes(device) as ways:
            inputs, targets = self._distillation_set(rows, device, generator, ways)
        torch.manual_seed(seed)
        if score:
            self.features, self.network = self.networks.features, self._network(self.networks.features).to(device)
        facts, ranges = train_student(
            self.network, inputs, targets, score, self.settings.distilled, seed, log, self.callback
        )
        self.ranges: list[Range] | None = ranges
        return facts

    def _distillation_set(
        self, rows: LabelledBatch, device: torch.device, generator: torch.Generator, ways: Lanes
    ) -> tuple[Tensor, Tensor]:
        """(n, inputs) inputs of the student and (n, grid.size) probabilities that the teachers predict.

        Neighbors are slower than networks: they predict only every second galaxy, with doubled weights. In the mean over
        galaxies this is the average of the teachers, which the student learns.
        """
        fluxes = Fluxes.of(rows.batch, self.settings.extra, device)
        limits = fluxes.limits()
        count, drop = distillation_rows(len(rows)), self.settings.distilled.band_dropout
        unseen = self.networks.unseen
        n_synthetic = 0 if unseen is None else min(count // 2, len(unseen))
        blends = self._blends(rows, fluxes, count - n_synthetic, generator)
        galaxies = chain(blends, self._synthetic(unseen, n_synthetic, device))
        augmented = [(drawn.dropped(drop, limits, generator), without) for drawn, without in galaxies]
        networks, *others = self.weights
        doubled = [2 * networks - 1, *(2 * weight for weight in others)]

        @torch.inference_mode()
        def predictions(galaxies: Galaxies) -> tuple[Tensor, Tensor]:
            drawn, without = galaxies
            density = self.networks.densities(drawn)
            second = slice(None, None, 2)
            density[second] = self._average(doubled, drawn.rows(second), None if without is None else without[second])
            density.div_(density.sum(1, keepdim=True))
            return self.networks.features(drawn), density.to(torch.bfloat16)

        inputs, targets = zip(*ways.map(predictions, augmented), strict=True)
        return torch.cat(inputs).clone(), torch.cat(targets).clone()

    def _blends(
        self, rows: LabelledBatch, fluxes: Fluxes, count: int, generator: torch.Generator
    ) -> Iterator[Galaxies]:
        """Blends of training rows of similar redshift, in chunks; the two rows of each are excluded as neighbors."""
        device = fluxes.flux.device
        by_redshift = torch.from_numpy(np.argsort(rows.z, kind="stable")).to(device)
        rank = by_redshift.argsort()
        in_table = torch.full((len(rows),), -1, device=device)
        in_table[self.neighbor_rows.to(device)] = torch.arange(len(self.neighbor_rows), device=device)
        for part in torch.arange(count, device=device).split(ROWS):
            own = part % len(rows)
            partner = partners(own, by_redshift, rank, generator)
            drawn = fluxes.rows(own).blended(fluxes.rows(partner), BLEND, generator)
            yield drawn.resampled(NOISE, generator), in_table[torch.stack([own, partner], 1)]

    def _synthetic(self, unseen: Photometry | None, count: int, device: torch.device) -> Iterator[Galaxies]:
        """Synthetic galaxies that the networks were not trained on, in chunks."""
        if unseen is not None:
            for part in row_chunks(count, ROWS):
                yield Fluxes.of(unseen[part], self.settings.extra, device), None

    def _network(self, features: Luptitudes) -> ResidualMLP:
        return ResidualMLP(1, features.size, features.plain, self.context.grid.size, self.settings.distilled)

    @torch.inference_mode()
    def predict(self, batch: Photometry) -> Tensor:
        fluxes, grid = Fluxes.of(batch, self.settings.extra, self.device), self.context.grid
        if not self.settings.distill:
            return self._average(self.weights, fluxes)
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
        return tensors, {"stacking_weights": self.weights, **{name: facts for name, (_, facts) in parts.items()}}

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
            self.weights = [float(weight) for weight in facts["stacking_weights"]]
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
        return {"networks": self.networks, **neighbors, "color_neighbors": self.color_neighbors}


@torch.inference_mode()
def _densities(part: ResidualEnsemble | MetricNeighbors | ColorNeighbors, fluxes: Fluxes) -> Tensor:
    return part.densities(fluxes)


MODEL = Ensemble
