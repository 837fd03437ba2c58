"""The flagship for images: residual networks over a stamp and the photometry of the same row, averaged, then distilled into a small one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zmill.chunks import cache_sized_chunks
from zmill.inputs.base import InputKind, Joint, LabelledBatch, ModelContext
from zmill.inputs.image.features import StampInputs, Stamps, prepared
from zmill.inputs.image.kind import ImageKind
from zmill.inputs.photometry.features import Fluxes, Luptitudes
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.models.base import Model, selection_rows
from zmill.networks.images import ResidualNetwork, compressed, shifted, turned
from zmill.networks.losses import cross_entropy, density_loss, mean_crps
from zmill.networks.network import Schedule, load_tensors, tensors_of, train
from zmill.sections import Text

ROWS = 128
"""Number of stamps that a CPU computes at a time, so that activations stay in the cache of a core."""
SEEDS = 100
"""Distance of the seeds of two networks."""
PHOTOMETRY, IMAGE = "photometry", "image"


class Distilled(Schedule):
    """Settings of the distilled network and of its training."""

    width: int = Field(16, ge=4, le=2**12)
    """Filters of its first stage."""
    blocks: int = Field(1, ge=0, le=100)
    """Residual blocks of a stage."""
    epochs: int = Field(10, ge=1, le=100_000)
    batch: int = Field(128, ge=1, le=2**20)
    lr: float = Field(3e-3, gt=0, le=10)
    ema: float = Field(0.998, ge=0, lt=1)


class ImageResNetSettings(Schedule):
    """Settings of the networks."""

    epochs: int = Field(30, ge=1, le=100_000)
    batch: int = Field(128, ge=1, le=2**20)
    lr: float = Field(2e-3, gt=0, le=10)
    weight_decay: float = Field(0.05, ge=0, le=10)
    ema: float = Field(0.998, ge=0, lt=1)
    width: int = Field(32, ge=4, le=2**12)
    """Filters of the first stage; each later one has twice as many."""
    blocks: int = Field(2, ge=0, le=100)
    """Residual blocks of a stage."""
    members: int = Field(3, ge=1, le=100)
    """Number of networks whose densities are averaged; each has its own initial weights, row order and augmentation."""
    shift: int = Field(1, ge=0, le=100)
    """Stamps are shifted by up to so many pixels along both axes in every step; at most an eighth of their size."""
    noise: float = Field(0.5, ge=0, le=10)
    """Gaussian noise of up to this many times the errors is added to pixels and magnitudes in every step."""
    band_dropout: float = Field(0.1, ge=0, le=1)
    """Fraction of the rows of a step from whose photometry bands are dropped."""
    input_dropout: float = Field(0.1, ge=0, le=0.5)
    """Fraction of the rows of a step whose stamp is dropped, and of those whose photometry is: a row that lacks one is predicted from the other."""
    label_smoothing: float = Field(0.002, ge=0, le=1)
    """Standard deviation, in 1 + z, of the Gaussian of a label."""
    crps: float = Field(1.0, ge=0, le=1000)
    """Weight of the CRPS, which is added to the cross-entropy."""
    rotations: int = Field(8, ge=1, le=8)
    """Number of the eight symmetries of a square over which a prediction of the networks is averaged."""
    distill: bool = True
    """Whether one small network is trained to reproduce the average, and only that network is saved."""
    distilled: Distilled = Distilled.model_validate({})
    """The distilled network."""
    extra: tuple[Text, ...] = ()
    """Inputs in addition to stamp, photometry and E(B−V): names of the survey's columns.extra."""


class Given(NamedTuple):
    """What a network is given of n rows: stamps, and photometry as fluxes."""

    stamps: Stamps
    fluxes: Fluxes


class ImageInputs(nn.Module):
    """Stamps and photometry to the two inputs of a network: compressed pixels, and all other numbers, standardized. Fitted on training rows."""

    def __init__(self, bands: int, photometric_bands: int, others: int) -> None:
        super().__init__()
        self.stamps, self.photometry = StampInputs(bands), Luptitudes(photometric_bands, others)
        self.size = self.stamps.size + self.photometry.size

    def fit(self, batch: Joint, extra: tuple[str, ...]) -> None:
        """Fit all scalings on training rows."""
        self.stamps.fit(batch.kinds[IMAGE])  # type: ignore[arg-type]
        self.photometry.fit(Fluxes.of(batch.kinds[PHOTOMETRY], extra))  # type: ignore[arg-type]

    def forward(self, given: Given) -> tuple[Tensor, Tensor]:
        """(n, bands, N, N) and (n, size)."""
        return compressed(given.stamps.pixels), torch.cat([self.stamps(given.stamps), self.photometry(given.fluxes)], 1)


class ImageResNet(Model):
    """Density as a softmax over the points of the redshift grid."""

    inputs = (PHOTOMETRY, IMAGE)
    Settings = ImageResNetSettings
    quick = {"width": 8, "blocks": 0, "members": 1, "epochs": 8, "batch": 64, "lr": 0.005, "ema": 0.9, "distill": False, "rotations": 1}  # fmt: skip
    min_train = 200

    settings: ImageResNetSettings
    epochs: list[int]
    """Best epochs of the networks and of the student."""

    def __init__(self, settings: ImageResNetSettings, context: ModelContext) -> None:
        super().__init__(settings, context)
        self._start()

    @classmethod
    def unsuitable(cls, settings: ImageResNetSettings, inputs: Mapping[str, InputKind]) -> str:
        kind = inputs[IMAGE]
        assert isinstance(kind, ImageKind)
        if 8 * settings.shift > kind.size:
            return f"shift: {settings.shift} pixels are more than an eighth of a stamp of {kind.size}: take a smaller `shift`"
        return ""

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        grid = self.context.grid
        train, valid = train.inside(grid), valid.inside(grid)
        self._start()
        judged = selection_rows(valid)
        truth = torch.as_tensor(judged.z, dtype=torch.float32, device=device)

        def score(network: nn.Module) -> float:
            return mean_crps(self._densities(judged.batch, [network], 1), truth, grid)

        self.features.fit(train.batch, self.settings.extra)
        facts = self._train_members(train, score, device, log)
        self.epochs = [int(facts[f"network {number + 1}"]["best_epoch"]) for number in range(len(self.members))]
        if self.settings.distill:
            facts["distilled"] = self._distill(train, score, device, log)
            self.epochs.append(int(facts["distilled"]["best_epoch"]))
            teachers = mean_crps(self._densities(judged.batch, self.members, self.settings.rotations), truth, grid)
            facts["distilled"]["teachers_score"] = teachers
            log(
                f"distillation: CRPS of the validation rows {facts['distilled']['best_score']:.5g}, that of the average of the networks "
                f"{teachers:.5g}"
            )
        self.to(device)
        return facts

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        rows = rows.inside(self.context.grid)
        self.features.fit(rows.batch, self.settings.extra)
        self._train_members(rows, None, device, log)
        if self.settings.distill:
            self._distill(rows, None, device, log)
        self.to(device)

    def _start(self) -> None:
        """Make untrained networks, and the student."""
        s, kind, photometry = self.settings, self.context.of(ImageKind), self.context.of(PhotometryKind)
        self.features = ImageInputs(len(kind.bands), len(photometry.bands), len(s.extra))
        self.members = [self._network(s.width, s.blocks, number) for number in range(s.members)]
        self.network = self._network(s.distilled.width, s.distilled.blocks, s.members)
        self.epochs = []

    def _network(self, width: int, blocks: int, number: int) -> ResidualNetwork:
        kind = self.context.of(ImageKind)
        torch.manual_seed(self.context.seed + SEEDS * number)
        return ResidualNetwork(len(kind.bands), kind.size, self.features.size, self.context.grid.size, width, blocks)

    def _train_members(
        self,
        rows: LabelledBatch,
        score: Callable[[nn.Module], float] | None,
        device: torch.device,
        log: Callable[[str], None],
    ) -> dict[str, Any]:
        """Train each network from the beginning; without `score`, for the number of epochs that validation rows selected."""
        s, grid = self.settings, self.context.grid
        z = torch.as_tensor(rows.z, dtype=torch.float32, device=device)
        weight = torch.as_tensor(rows.weight / rows.weight.mean(), dtype=torch.float32, device=device)
        given = self._given(rows.batch, device)

        def loss(network: nn.Module, chosen: Tensor, generator: torch.Generator) -> Tensor:
            (numbers,) = chosen
            scores = network(*self.features(self._augmented(given(numbers), generator))).float()
            losses = density_loss(scores, z[numbers], grid, s.label_smoothing, s.crps)
            return (losses * weight[numbers]).mean()

        facts = {}
        for number in range(s.members):
            seed = self.context.seed + SEEDS * number
            self.members[number] = self._network(s.width, s.blocks, number).to(device)
            phase = f"network {number + 1}" + ("" if score else ", refitted")
            facts[f"network {number + 1}"] = train(
                self.members[number], len(rows), 1, loss, score, s, seed, log, callback=self.callback, phase=phase,
                until=None if score else self.epochs[number], parallel=True,
            )  # fmt: skip
        return facts

    def _distill(
        self,
        rows: LabelledBatch,
        score: Callable[[nn.Module], float] | None,
        device: torch.device,
        log: Callable[[str], None],
    ) -> dict[str, Any]:
        """Train the student to reproduce the average of the networks on augmented training rows."""
        s, seed = self.settings.distilled, self.context.seed + SEEDS * self.settings.members
        self.network = self._network(s.width, s.blocks, self.settings.members).to(device)
        given = self._given(rows.batch, device)
        log(f"distillation: training a network of width {s.width} on the predictions of {len(self.members)}")

        def loss(network: nn.Module, chosen: Tensor, generator: torch.Generator) -> Tensor:
            (numbers,) = chosen
            inputs = self.features(self._augmented(given(numbers), generator))
            with torch.no_grad():
                target = torch.stack([member(*inputs).float().softmax(1) for member in self.members]).mean(0)
            return cross_entropy(network(*inputs).float(), target).mean()

        phase, until = ("distilled", None) if score else ("distilled, refitted", self.epochs[-1])
        return train(
            self.network, len(rows), 1, loss, score, s, seed, log, callback=self.callback, phase=phase, until=until, parallel=True
        )  # fmt: skip

    def _given(self, batch: Joint, device: torch.device) -> Callable[[Tensor], Given]:
        """What gives the inputs of training rows by their numbers."""
        self.features.to(device)
        fluxes = Fluxes.of(batch.kinds[PHOTOMETRY], self.settings.extra, device)  # type: ignore[arg-type]
        stamps = prepared(batch.kinds[IMAGE], self.features.stamps)
        self._limits = fluxes.limits()
        return lambda numbers: Given(stamps(numbers), fluxes.rows(numbers))

    def _augmented(self, given: Given, generator: torch.Generator) -> Given:
        """The rows with random symmetries, shifts, noise, and without some bands, stamps and photometry."""
        s, stamps = self.settings, given.stamps
        n, device = len(stamps.there), stamps.pixels.device
        pixels = turned(stamps.pixels, torch.randint(0, 8, (n,), generator=generator, device=device))
        if s.shift:
            pixels = shifted(pixels, s.shift, generator)
        if s.noise:
            factor = s.noise * torch.rand((n, 1), generator=generator, device=device).square()
            more = factor * stamps.noise
            drawn = torch.randn(pixels.shape, generator=generator, device=device)
            pixels = torch.where(pixels != 0, pixels + more[..., None, None] * drawn, pixels)
            stamps = stamps._replace(noise=torch.hypot(stamps.noise, more))
        fate = torch.rand(n, generator=generator, device=device)
        there = stamps.there & (fate >= s.input_dropout)
        pixels = torch.where(there[:, None, None, None], pixels, 0.0)
        fluxes = given.fluxes.resampled(s.noise, generator).dropped(s.band_dropout, self._limits, generator)
        kept = (fate < 1 - s.input_dropout)[:, None]
        fluxes = fluxes._replace(
            flux=torch.where(kept, fluxes.flux, 0.0),
            observed=fluxes.observed & kept,
            undetected=fluxes.undetected & kept,
        )
        return Given(stamps._replace(pixels=pixels, there=there), fluxes)

    @torch.inference_mode()
    def _densities(self, batch: Joint, networks: Sequence[nn.Module], rotations: int) -> Tensor:
        """(n, grid.size) mean of the densities of networks over symmetries of the stamps."""
        found = []
        for rows in cache_sized_chunks(len(batch), ROWS, self.device):
            part = batch[rows]
            stamps = self.features.stamps.stamps(part.kinds[IMAGE])  # type: ignore[arg-type]
            fluxes = Fluxes.of(part.kinds[PHOTOMETRY], self.settings.extra, stamps.pixels.device)  # type: ignore[arg-type]
            pixels, others = self.features(Given(stamps, fluxes))
            total = torch.zeros(len(pixels), self.context.grid.size, device=pixels.device)
            for number in range(rotations):
                seen = turned(pixels, torch.full((len(pixels),), number, device=pixels.device)) if number else pixels
                for network in networks:
                    total += network(seen, others).float().softmax(1)
            found.append(total)
        return self.context.grid.normalize(torch.cat(found))

    @torch.inference_mode()
    def predict(self, batch: Joint) -> Tensor:
        if self.settings.distill:
            return self._densities(batch, [self.network], 1)
        return self._densities(batch, self.members, self.settings.rotations)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        networks = {"student": self.network} if self.settings.distill else self._by_name()
        return tensors_of(features=self.features, **networks), {"epochs": self.epochs}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        networks = {"student": self.network} if self.settings.distill else self._by_name()
        load_tensors(tensors, features=self.features, **networks)
        self.epochs = [int(epochs) for epochs in facts["epochs"]]
        self.to(torch.device("cpu"))

    def _by_name(self) -> dict[str, nn.Module]:
        return {f"network{number}": member for number, member in enumerate(self.members)}

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.features.to(device)
        for network in (*self.members, self.network):
            network.to(device).eval()


MODEL = ImageResNet
