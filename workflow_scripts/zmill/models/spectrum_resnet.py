"""The flagship for spectra: a dilated residual network on ln λ with learned rest-frame templates, and a softmax over the redshift grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from zmill.chunks import cache_sized_chunks, row_chunks
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.spectrum.batch import Spectra
from zmill.inputs.spectrum.continuum import level
from zmill.inputs.spectrum.grid import evenly_in_log
from zmill.inputs.spectrum.kind import SpectrumKind
from zmill.inputs.spectrum.rebin import Rebinning
from zmill.models.base import Model, selection_rows
from zmill.networks.device import sent
from zmill.networks.losses import (
    LabelDistributions,
    Labels,
    LabelSettings,
    cell_ends,
    density_loss,
    jensen_shannon,
    mean_crps,
)
from zmill.networks.network import Schedule, load_tensors, tensors_of, train
from zmill.networks.spectral import SpectralNetwork

ROWS = 256
"""Number of spectra that a CPU computes at a time, so that the activations stay in the cache of a core."""
SMALLEST_ERROR = 0.01
"""Errors of pixels in units of the level, below which spectra count as free of noise."""
LITTLE_NOISE = 0.02
"""Noise in units of the level, which augmentation adds to spectra without noise: small details differ between galaxies."""
LARGEST = 20.0
"""Fluxes in units of the level are clipped to this: bad pixels are not all masked."""
PARTNERS = 10
"""The two spectra of a blend are at most this many ranks in redshift apart, and half a pixel."""


class Pixels(NamedTuple):
    """Spectra as the network takes them: flux, error (n, pixels) in units of the level of each, and the level (n,), its decimal logarithm.

    Errors are infinite in masked pixels.
    """

    flux: Tensor
    error: Tensor
    level: Tensor

    def rows(self, rows: Tensor | slice) -> Pixels:
        """Some of the rows."""
        return Pixels(*(part[rows] for part in self))


class SpectrumResNetSettings(Schedule, LabelSettings):
    """Settings of the flagship for spectra."""

    epochs: int = Field(30, ge=1, le=100_000)
    batch: int = Field(256, ge=1, le=2**20)
    lr: float = Field(3e-3, gt=0, le=10)
    weight_decay: float = Field(0.02, ge=0, le=10)
    ema: float = Field(0.998, ge=0, lt=1)
    width: int = Field(32, ge=4, le=2**12)
    """Number of channels."""
    blocks: int = Field(4, ge=0, le=100)
    """Number of residual blocks."""
    noise: float = Field(0.5, ge=0, le=10)
    """Gaussian noise of up to this many times the errors, and 0.02 of the level, is added in every step, and the errors grow by as much."""
    masked: float = Field(0.3, ge=0, le=1)
    """Largest fraction of a spectrum that is masked, as one contiguous part, in half of the rows of a step."""
    shift: float = Field(0.01, ge=0, le=1)
    """Spectra are shifted by up to this much in ln(1 + z), with their redshift, in every step."""
    blend: float = Field(0.5, ge=0, le=1)
    """Largest fraction of the light that another spectrum of the same redshift contributes, in half of the rows of a step."""
    label_smoothing: float = Field(0.0, ge=0, le=1)
    """Standard deviation, in 1 + z, of the Gaussian of a label, to which the error of the redshift is added in quadrature. A label
    narrower than the grid can show is interpolated between the two nearest points."""
    loss: Literal["cross_entropy", "jensen_shannon"] = "cross_entropy"
    """What compares the predicted distribution and that of the label."""
    crps: float = Field(1.0, ge=0, le=1000)
    """Weight of the CRPS, which is added to the cross-entropy."""


class SpectrumResNet(Model):
    """Density as a softmax over the points of the redshift grid."""

    inputs = ("spectrum",)
    streams = True
    Settings = SpectrumResNetSettings
    quick = {"width": 8, "blocks": 1, "epochs": 12, "batch": 64, "lr": 0.01, "ema": 0.9}
    min_train = 200

    settings: SpectrumResNetSettings

    phase: str = "network"
    """Name of the training in checkpoints and in the log."""

    def __init__(self, settings: SpectrumResNetSettings, context: ModelContext) -> None:
        super().__init__(settings, context)
        own = context.of(SpectrumKind).grid
        self.wavelengths = own if own.log_step else evenly_in_log(own)
        self._rebinning = None if own.log_step else Rebinning.of(own.edges, self.wavelengths.edges)
        self._distributions = LabelDistributions(context.grid, cell_ends(context.grid), settings.label_bins)
        self.network = self._build()

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        s, grid = self.settings, self.context.grid
        valid = valid.inside(grid)
        judged = selection_rows(valid)
        labels = Labels.of(judged, s.label_smoothing, device)

        def score(network: nn.Module) -> float:
            scores = self._scores(judged.batch, network)
            if s.label_bins:  # the redshifts of validation rows are as coarse as those of training rows
                return float(self._losses(scores, labels).mean())
            return mean_crps(grid.normalize(scores.softmax(1)), labels.z, grid)

        facts = self._train(train.inside(grid), score, device, log)
        self.epochs = int(facts["best_epoch"])
        self.to(device)
        return facts

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        self._train(rows.inside(self.context.grid), None, device, log)
        self.to(device)

    def _build(self) -> SpectralNetwork:
        step = self.wavelengths.log_step
        assert step is not None
        return SpectralNetwork(
            len(self.wavelengths), step, self.context.grid.tensor(), self.settings.width, self.settings.blocks
        )

    def _train(
        self,
        rows: LabelledBatch,
        score: Callable[[nn.Module], float] | None,
        device: torch.device,
        log: Callable[[str], None],
    ) -> dict[str, Any]:
        """Train from the beginning; without `score`, for the number of epochs that validation rows selected."""
        s, seed = self.settings, self.context.seed
        torch.manual_seed(seed)
        self.network = self._build()
        self.to(device)
        labels = Labels.of(rows, s.label_smoothing, device)
        pixels, level = self._prepared(rows.batch)
        self.network.fit_level(level)
        by_redshift = labels.z.argsort(stable=True)
        rank = by_redshift.argsort()

        def loss(network: nn.Module, chosen: Tensor, generator: torch.Generator) -> Tensor:
            (numbers,) = chosen
            own, of_rows = pixels(numbers), labels.rows(numbers)
            if s.blend:
                near = torch.randint(1, PARTNERS + 1, numbers.shape, generator=generator, device=device)
                near = near * (2 * torch.randint(0, 2, numbers.shape, generator=generator, device=device) - 1)
                partner = by_redshift[(rank[numbers] + near).clamp(0, len(rank) - 1)]
                own = self._blended(own, pixels(partner), of_rows.z, labels.z[partner], generator)
            own, z = self._augmented(own, of_rows.z, generator)
            scores = network(channels(own.flux, own.error), own.level).float()
            return (self._losses(scores, of_rows._replace(z=z)) * of_rows.weight).mean()

        phase, until = (self.phase, None) if score else (f"{self.phase}, refitted", self.epochs)
        return train(
            self.network, len(rows), 1, loss, score, s, seed, log, callback=self.callback, phase=phase, until=until, parallel=True
        )  # fmt: skip

    def _losses(self, scores: Tensor, labels: Labels) -> Tensor:
        """(n,) losses of scores (n, grid.size)."""
        s, grid = self.settings, self.context.grid
        if s.loss == "cross_entropy":
            return density_loss(scores, labels.z, grid, labels.width, s.crps)
        return jensen_shannon(scores, self._distributions(labels), s.entropy)

    def _prepared(self, batch: Any) -> tuple[Callable[[Tensor], Pixels], Tensor]:
        """What gives pixels of training rows by their numbers, and (n,) logarithms of the levels of all.

        Rows in memory are prepared once.
        """
        parts = (
            [self._pixels(batch[rows]) for rows in row_chunks(len(batch), ROWS)] if isinstance(batch, Spectra) else None
        )
        if parts is not None:
            every = Pixels(*map(torch.cat, zip(*parts, strict=True)))
            return every.rows, every.level
        level = torch.cat([self._pixels(batch[rows]).level for rows in row_chunks(len(batch), ROWS)])
        return lambda numbers: self._pixels(batch[numbers.cpu().numpy()]), level

    def _pixels(self, batch: Spectra) -> Pixels:
        """The spectra in units of their levels, evenly spaced in ln λ."""
        flux: NDArray[Any] = batch.flux
        ivar: NDArray[Any] = batch.ivar
        if self._rebinning is not None:
            flux, ivar = self._rebinning.apply(flux, ivar)
        good = ivar > 0
        scale = level(flux.astype(np.float32), ivar.astype(np.float32))[:, None]
        error = np.divide(1, np.sqrt(ivar) * scale, out=np.full(ivar.shape, np.inf), where=good)
        parts = (np.where(good, flux / scale, 0), error, np.log10(scale[:, 0]))
        return Pixels(*(sent(part.astype(np.float32), self.device) for part in parts))

    def _blended(self, own: Pixels, other: Pixels, z: Tensor, other_z: Tensor, generator: torch.Generator) -> Pixels:
        """Half of the spectra with a part of their light replaced by that of other ones, where these are within half a pixel in redshift."""
        step = self.wavelengths.log_step
        assert step is not None
        n, device = len(z), z.device
        fraction, chosen = (torch.rand(n, generator=generator, device=device) for _ in range(2))
        near = ((1 + z).log() - (1 + other_z).log()).abs() < step / 2
        fraction = (self.settings.blend * fraction * ((chosen < 0.5) & near))[:, None]
        mixed = fraction > 0
        flux = torch.where(mixed, own.flux.lerp(other.flux, fraction), own.flux)
        error = torch.where(mixed, torch.hypot((1 - fraction) * own.error, fraction * other.error), own.error)
        return Pixels(flux, error, own.level)

    def _augmented(self, spectra: Pixels, z: Tensor, generator: torch.Generator) -> tuple[Pixels, Tensor]:
        """The spectra and redshifts with random noise, masks and shifts."""
        flux, error, _ = spectra
        s, (n, pixels), device = self.settings, flux.shape, flux.device

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=device)

        if s.noise:
            more = s.noise * uniform(n, 1).square() * (error + LITTLE_NOISE)
            drawn = torch.randn(n, pixels, generator=generator, device=device)
            flux = torch.where(torch.isfinite(error), flux + more * drawn, flux)
            error = torch.hypot(error, more)
        numbers = torch.arange(pixels, device=device)
        if s.masked:
            share = s.masked * uniform(n, 1) * (uniform(n, 1) < 0.5)
            first = uniform(n, 1) * (1 - share)
            hidden = (numbers >= first * pixels) & (numbers < (first + share) * pixels)
            error = error.masked_fill(hidden, torch.inf)
        if s.shift:
            step = self.wavelengths.log_step
            assert step is not None
            most = int(s.shift / step)
            by = torch.randint(-most, most + 1, (n,), generator=generator, device=device)
            shifted = (1 + z) * (by * step).exp() - 1
            by = by * ((shifted >= self.context.grid.z_min) & (shifted <= self.context.grid.z_max))
            z = (1 + z) * (by * step).exp() - 1
            source = numbers - by[:, None]
            inside = (source >= 0) & (source < pixels)
            source = source.clamp(0, pixels - 1)
            flux, error = flux.gather(1, source), error.gather(1, source).masked_fill(~inside, torch.inf)
        return Pixels(flux, error, spectra.level), z

    @torch.inference_mode()
    def _scores(self, batch: Spectra, network: nn.Module | None = None) -> Tensor:
        """(n, grid.size) outputs of the network."""
        network = network or self.network
        found = []
        for rows in cache_sized_chunks(len(batch), ROWS, self.device):
            pixels = self._pixels(batch[rows])
            found.append(network(channels(pixels.flux, pixels.error), pixels.level).float())
        return torch.cat(found)

    @torch.inference_mode()
    def predict(self, batch: Spectra) -> Tensor:
        return self.context.grid.normalize(self._scores(batch).softmax(1))

    @torch.inference_mode()
    def log_density(self, batch: Spectra) -> Tensor:
        return self._scores(batch)

    @torch.inference_mode()
    def embed(self, batch: Spectra) -> Tensor:
        """(n, 4 width) float32 embeddings of spectra, similar for similar spectra, on the model's device."""
        found = []
        for rows in cache_sized_chunks(len(batch), ROWS, self.device):
            pixels = self._pixels(batch[rows])
            found.append(self.network.embedding(channels(pixels.flux, pixels.error), pixels.level).float())
        return torch.cat(found)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return tensors_of(network=self.network), {"epochs": self.epochs}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        load_tensors(tensors, network=self.network)
        self.epochs = int(facts["epochs"])
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.network.to(device).eval()


def channels(flux: Tensor, error: Tensor) -> Tensor:
    """(n, 3, pixels) inputs of the network: flux, arsinh of its signal-to-noise ratio, and whether the pixel is good; 0 in masked pixels.

    The arsinh is proportional to weak fluxes, and the logarithm of strong ones. Ratios above some `1 / SMALLEST_ERROR` do not count.
    """
    good = torch.isfinite(error)
    flux = torch.where(good, flux, 0.0).clamp(-LARGEST, LARGEST)
    ratio = torch.where(good, flux / (error + SMALLEST_ERROR), 0.0).asinh() / 2
    return torch.stack([flux, ratio, good.float()], 1)


MODEL = SpectrumResNet
