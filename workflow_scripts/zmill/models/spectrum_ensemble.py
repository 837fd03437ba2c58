"""Residual networks over spectra with different random numbers, averaged, then distilled into one small network.

The networks are those of `spectrum_resnet`. The small one takes the pixels of spectra of up to some hundred pixels as they are, so
that a prediction costs little more than reading. It has to learn every redshift by itself, which suits spectra of low resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from zmill.chunks import cache_sized_chunks, evenly
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.spectrum.batch import Spectra
from zmill.inputs.spectrum.continuum import level
from zmill.inputs.spectrum.kind import SpectrumKind
from zmill.models import base
from zmill.models.base import VALIDATION_ROWS, Model, selection_rows
from zmill.models.spectrum_resnet import SpectrumResNet, SpectrumResNetSettings
from zmill.networks.device import sent
from zmill.networks.distillation import BLEND, NOISE, Student, partners, train_student
from zmill.networks.inference import Applied, Range
from zmill.networks.losses import mean_crps
from zmill.networks.network import ResidualMLP, load_tensors, tensors_of

ROWS = 2048
"""Number of spectra computed at a time, so that activations stay in the processor's cache."""
BINS = 192
"""Largest number of inputs of the student from the pixels; longer spectra are averaged in so many bins."""
LARGEST = 20.0
"""Fluxes in units of the level are clipped to this."""
SEEDS = 100
"""Distance of the seeds of two networks."""


class Distilled(Student):
    """Settings of the distilled network and of its training."""

    width: int = Field(128, ge=8, le=2**14)


class SpectrumEnsembleSettings(base.Settings):
    """Settings of the ensemble."""

    networks: SpectrumResNetSettings = SpectrumResNetSettings.model_validate({})
    """The residual networks: the keys of `spectrum_resnet`."""
    members: int = Field(3, ge=1, le=100)
    """Number of networks whose densities are averaged; each has its own initial weights, row order and augmentation."""
    distill: bool = True
    """Whether one small network is trained to reproduce the average, and only that network is saved."""
    distilled: Distilled = Distilled.model_validate({})
    """The distilled network."""
    predictions: int = Field(150_000, ge=100, le=10**9)
    """Number of blends of training rows that the networks predict for the student."""


class CoarseSpectra(nn.Module):
    """Inputs of the student: fluxes in units of their mean absolute value, in bins, and logarithms of this value and of the S/N.

    They are standardized on training rows.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.bins = min(pixels, BINS)
        self.register_buffer("center", torch.zeros(self.bins + 2))
        self.register_buffer("spread", torch.ones(self.bins + 2))

    center: Tensor
    spread: Tensor

    @property
    def size(self) -> int:
        """Number of inputs."""
        return self.bins + 2

    def fit(self, batch: Spectra) -> None:
        """Fit the scaling on training rows."""
        values = self._plain(batch)
        self.center, self.spread = values.mean(0), values.std(0).clamp_min(1e-3)

    def forward(self, batch: Spectra) -> Tensor:
        """(n, size) inputs of spectra."""
        return self._plain(batch).sub_(self.center).div_(self.spread)

    def _plain(self, batch: Spectra) -> Tensor:
        device, masked = self.center.device, bool((batch.good < 1).any())
        flux = sent(np.ascontiguousarray(batch.flux), device)
        if flux.shape[1] > self.bins:
            flux = functional.adaptive_avg_pool1d(flux, self.bins)
            if masked:
                good = sent((batch.ivar > 0).astype(np.float32), device)
                flux = flux / functional.adaptive_avg_pool1d(good, self.bins).clamp_min(1e-6)
        found = torch.empty(len(flux), self.size, device=device)
        scale = flux.abs().mean(1)
        if masked and self.bins == batch.flux.shape[1]:
            scale = scale / sent(np.maximum(batch.good, np.float32(1e-6)), device)
        scale = torch.where(scale > 0, scale, 1.0)
        torch.div(flux, scale[:, None], out=found[:, : self.bins]).clamp_(-LARGEST, LARGEST)
        ratio = sent(np.nan_to_num(batch.sn), device)
        found[:, self.bins], found[:, self.bins + 1] = scale.log10(), ratio.clamp_min(0.01).log10()
        return found


class SpectrumEnsemble(Model):
    """Mean of the densities of several `spectrum_resnet`, or one network distilled from it."""

    inputs = ("spectrum",)
    streams = True
    Settings = SpectrumEnsembleSettings
    quick = {
        "networks": {**SpectrumResNet.quick, "epochs": 8},
        "members": 2,
        "distilled": {"epochs": 3, "width": 64, "batch": 256},
        "predictions": 10_000,
    }
    min_train = 200

    settings: SpectrumEnsembleSettings

    def __init__(self, settings: SpectrumEnsembleSettings, context: ModelContext) -> None:
        super().__init__(settings, context)
        self._start()

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        grid = self.context.grid
        train, valid = train.inside(grid), valid.inside(grid)
        self._start()
        facts: dict[str, Any] = {}
        for number, member in enumerate(self.members):
            facts[f"network {number + 1}"] = member.fit(train, valid, device, log)
        if self.settings.distill:
            judged = selection_rows(valid).in_memory()
            truth = torch.as_tensor(judged.z, dtype=torch.float32, device=device)

            def score(network: nn.Module) -> float:
                outputs = network(self.features(judged.batch)[None])[0].float()
                return mean_crps(grid.normalize(outputs.softmax(1)), truth, grid)

            facts["distilled"] = self._distill(train, score, device, log)
            with torch.inference_mode():
                parts = cache_sized_chunks(len(judged), ROWS, device)
                averaged = torch.cat([self._average(judged.batch[rows]) for rows in parts])
            facts["distilled"]["teachers_score"] = mean_crps(averaged, truth, grid)
            own, theirs = (facts["distilled"][name] for name in ("best_score", "teachers_score"))
            log(
                f"distillation: CRPS of the validation rows {own:.5g}, that of the average of the networks {theirs:.5g}"
            )
        self.to(device)
        return facts

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        rows = rows.inside(self.context.grid)
        for member in self.members:
            member.refit(rows, device, log)
        if self.settings.distill:
            self._distill(rows, None, device, log)
        self.to(device)

    def _start(self) -> None:
        """Make untrained networks, and the student."""
        s = self.settings
        self.members = []
        for number in range(s.members):
            member = SpectrumResNet(s.networks, replace(self.context, seed=self.context.seed + SEEDS * number))
            member.callback, member.phase = self.callback, f"network {number + 1}"
            self.members.append(member)
        self.features = CoarseSpectra(len(self.context.of(SpectrumKind).grid))
        self.network = ResidualMLP(1, self.features.size, self.features.bins, self.context.grid.size, s.distilled)
        self.ranges: list[Range] | None = None

    def _average(self, batch: Spectra) -> Tensor:
        """(n, grid.size) mean of the densities of the networks."""
        mean = self.members[0].predict(batch)
        for member in self.members[1:]:
            mean = mean + member.predict(batch)
        return mean / len(self.members)

    def _distill(
        self,
        rows: LabelledBatch,
        score: Callable[[nn.Module], float] | None,
        device: torch.device,
        log: Callable[[str], None],
    ) -> dict[str, Any]:
        """Train the student to reproduce the average of the networks on blends of training rows of similar redshift.

        score : of the student on the validation rows; None: fine-tune the student, because the networks were refitted.
        """
        seed = self.context.seed + 1
        generator = torch.Generator().manual_seed(seed)
        self.features.to(device)
        if score:
            torch.manual_seed(seed)
            self.network = ResidualMLP(
                1, self.features.size, self.features.bins, self.context.grid.size, self.settings.distilled
            )
            self.features.fit(rows.batch[evenly(len(rows), VALIDATION_ROWS)])
        self.network.to(device)
        log(f"distillation: the networks predict blends of {len(rows):,} training rows")
        inputs, targets = [], []
        with torch.inference_mode():
            for batch in self._blends(rows, generator):
                density = self._average(batch)
                inputs.append(self.features(batch))
                targets.append((density / density.sum(1, keepdim=True)).to(torch.bfloat16))
        given = torch.cat(inputs).clone(), torch.cat(targets).clone()
        facts, self.ranges = train_student(
            self.network, *given, score, self.settings.distilled, seed, log, self.callback
        )
        return facts

    def _blends(self, rows: LabelledBatch, generator: torch.Generator) -> Iterator[Spectra]:
        """Blends of training rows of similar redshift with added noise, in chunks.

        The networks are more confident of their training rows than of new ones.
        """
        by_redshift = torch.from_numpy(np.argsort(rows.z, kind="stable"))
        rank = by_redshift.argsort()
        for part in torch.arange(self.settings.predictions).split(ROWS):
            own = part % len(rows)
            numbers = own.numpy(), partners(own, by_redshift, rank, generator).numpy()
            one, other = (rows.batch[chosen] for chosen in numbers)
            fraction = BLEND * torch.rand(len(own), 1, generator=generator).numpy()
            drawn = torch.randn(one.flux.shape, generator=generator).numpy()
            yield _blended(one, other, fraction, NOISE * drawn)

    @torch.inference_mode()
    def predict(self, batch: Spectra) -> Tensor:
        if not self.settings.distill:
            return self._average(batch)
        grid = self.context.grid
        density = torch.empty(len(batch), grid.size, device=self.device)
        for rows in cache_sized_chunks(len(batch), ROWS, self.device):
            grid.normalize(self._applied.probability(self.features(batch[rows])), out=density[rows])
        return density

    @torch.inference_mode()
    def log_density(self, batch: Spectra) -> Tensor:
        if not self.settings.distill:
            return super().log_density(batch)
        return self._applied.log_probability(self.features(batch))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        if self.settings.distill:
            return tensors_of(features=self.features, network=self.network), {"ranges": self.ranges}
        parts = {f"member{number}": member.state() for number, member in enumerate(self.members)}
        tensors = {f"{name}.{key}": value for name, (found, _) in parts.items() for key, value in found.items()}
        return tensors, {name: facts for name, (_, facts) in parts.items()}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        if self.settings.distill:
            load_tensors(tensors, features=self.features, network=self.network)
            self.ranges = facts.get("ranges")
        else:
            for number, member in enumerate(self.members):
                prefix = f"member{number}."
                own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
                member.restore(own, facts[f"member{number}"])
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        for member in self.members:
            member.to(device)
        if self.settings.distill:
            self.features.to(device)
            self._applied = Applied(self.network.to(device).eval(), self.ranges)


def _blended(one: Spectra, other: Spectra, fraction: np.ndarray, noise: np.ndarray) -> Spectra:
    """Spectra with a fraction (n, 1) of their light replaced by that of others, and with noise (n, pixels) in units of the errors.

    A pixel is good where it is in both.
    """
    scale = (level(one.flux, one.ivar) / level(other.flux, other.ivar))[:, None]
    good = (one.ivar > 0) & (other.ivar > 0)
    safe = [np.where(good, part, np.float32(1)) for part in (one.ivar, other.ivar)]
    variance = (1 - fraction) ** 2 / safe[0] + (fraction * scale) ** 2 / safe[1]
    flux = (1 - fraction) * one.flux + fraction * scale * other.flux + np.sqrt(variance) * noise
    ivar = np.where(good, 1 / (variance * (1 + NOISE**2)), 0)
    return one.with_pixels(flux.astype(np.float32), ivar.astype(np.float32))


MODEL = SpectrumEnsemble
