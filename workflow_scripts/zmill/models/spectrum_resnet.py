"""The flagship for spectra: a dilated residual network on ln λ with learned rest-frame templates, and a softmax over the redshift grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from zmill.chunks import cache_sized_chunks
from zmill.inputs.base import LabelledBatch, ModelContext, evenly
from zmill.inputs.spectrum.batch import Spectra
from zmill.inputs.spectrum.continuum import level
from zmill.inputs.spectrum.grid import WavelengthGrid
from zmill.inputs.spectrum.kind import SpectrumKind
from zmill.inputs.spectrum.rebin import Rebinning
from zmill.models.base import Model
from zmill.networks.device import sent
from zmill.networks.losses import density_loss, mean_crps
from zmill.networks.network import Schedule, train
from zmill.networks.spectral import CHANNELS, SpectralNetwork

ROWS = 256
"""Number of spectra that a CPU computes at a time, so that the activations stay in the cache of a core."""
VALIDATION_ROWS = 10_000
LARGEST = 20.0
"""Fluxes in units of the level, and signal-to-noise ratios of a pixel in units of ten, are clipped to this: bad pixels are not all masked."""


class SpectrumResNetSettings(Schedule):
    """Settings of the flagship for spectra."""

    epochs: int = Field(30, ge=1, le=100_000)
    batch: int = Field(256, ge=1, le=2**20)
    lr: float = Field(3e-3, gt=0, le=10)
    weight_decay: float = Field(0.02, ge=0, le=10)
    ema: float = Field(0.998, ge=0, lt=1)
    width: int = Field(48, ge=4, le=2**12)
    """Number of channels."""
    blocks: int = Field(4, ge=0, le=100)
    """Number of residual blocks."""
    noise: float = Field(0.5, ge=0, le=10)
    """Gaussian noise of up to this many times the errors is added to the fluxes in every step, and the errors grow by as much."""
    masked: float = Field(0.3, ge=0, le=1)
    """Largest fraction of a spectrum that is masked, as one contiguous part, in half of the rows of a step."""
    shift: float = Field(0.01, ge=0, le=1)
    """Spectra are shifted by up to this much in ln(1 + z), with their redshift, in every step."""
    label_smoothing: float = Field(0.0, ge=0, le=1)
    """Standard deviation, in 1 + z, of the Gaussian of a label; 0: a label is interpolated between the two nearest grid points."""
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

    def __init__(self, settings: SpectrumResNetSettings, context: ModelContext) -> None:
        super().__init__(settings, context)
        own = context.of(SpectrumKind).grid
        self.wavelengths = own if own.log_step else evenly_in_log(own)
        self._rebinning = None if own.log_step else Rebinning.of(own.edges, self.wavelengths.edges)
        self.network = self._build()

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        grid = self.context.grid
        valid = valid.inside(grid)
        judged = valid.rows(evenly(len(valid), VALIDATION_ROWS))
        truth = torch.as_tensor(judged.z, dtype=torch.float32, device=device)

        def score(network: nn.Module) -> float:
            return mean_crps(grid.normalize(self._scores(judged.batch, network).softmax(1)), truth, grid)

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
        s, seed, grid = self.settings, self.context.seed, self.context.grid
        torch.manual_seed(seed)
        self.network = self._build()
        self.to(device)
        z = torch.as_tensor(rows.z, dtype=torch.float32, device=device)
        weight = torch.as_tensor(rows.weight / rows.weight.mean(), dtype=torch.float32, device=device)

        def loss(network: nn.Module, chosen: Tensor, generator: torch.Generator) -> Tensor:
            (numbers,) = chosen
            flux, error = self._pixels(rows.batch[numbers.cpu().numpy()])
            flux, error, redshift = self._augmented(flux, error, z[numbers], generator)
            logits = network(channels(flux, error)[None])[0].float()
            return (density_loss(logits, redshift, grid, s.label_smoothing, s.crps) * weight[numbers]).mean()

        phase, until = ("network", None) if score else ("network, refitted", self.epochs)
        return train(
            self.network, len(rows), 1, loss, score, s, seed, log, callback=self.callback, phase=phase, until=until, parallel=True
        )  # fmt: skip

    def _pixels(self, batch: Spectra) -> tuple[Tensor, Tensor]:
        """(n, pixels) fluxes in units of the level of each spectrum, and their errors, infinite in masked pixels; evenly spaced in ln λ."""
        flux: NDArray[Any] = batch.flux
        ivar: NDArray[Any] = batch.ivar
        if self._rebinning is not None:
            flux, ivar = self._rebinning.apply(flux, ivar)
        good = ivar > 0
        scale = level(flux.astype(np.float32), ivar.astype(np.float32))[:, None]
        error = np.divide(1, np.sqrt(ivar) * scale, out=np.full(ivar.shape, np.inf), where=good)
        return tuple(sent(part.astype(np.float32), self.device) for part in (np.where(good, flux / scale, 0), error))  # type: ignore[return-value]

    def _augmented(
        self, flux: Tensor, error: Tensor, z: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The spectra and redshifts with random noise, masks and shifts."""
        s, (n, pixels), device = self.settings, flux.shape, flux.device

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=device)

        if s.noise:
            more = s.noise * uniform(n, 1)
            drawn = torch.randn(n, pixels, generator=generator, device=device)
            flux = torch.where(torch.isfinite(error), flux + more * error * drawn, flux)
            error = error * (1 + more.square()).sqrt()
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
        return flux, error, z

    @torch.inference_mode()
    def _scores(self, batch: Spectra, network: nn.Module | None = None) -> Tensor:
        """(n, grid.size) outputs of the network."""
        network = network or self.network
        parts = cache_sized_chunks(len(batch), ROWS, self.device)
        return torch.cat([network(channels(*self._pixels(batch[rows]))[None])[0].float() for rows in parts])

    @torch.inference_mode()
    def predict(self, batch: Spectra) -> Tensor:
        return self.context.grid.normalize(self._scores(batch).softmax(1))

    @torch.inference_mode()
    def log_density(self, batch: Spectra) -> Tensor:
        return self._scores(batch)

    @torch.inference_mode()
    def embed(self, batch: Spectra) -> Tensor:
        """(n, 4 width) float32 embeddings of spectra, similar for similar spectra, on the model's device."""
        parts = cache_sized_chunks(len(batch), ROWS, self.device)
        return torch.cat([self.network.embedding(channels(*self._pixels(batch[rows]))).float() for rows in parts])

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {f"network.{key}": value for key, value in self.network.state_dict().items()}, {"epochs": self.epochs}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.network.load_state_dict({key.removeprefix("network."): value for key, value in tensors.items()})
        self.epochs = int(facts["epochs"])
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.network.to(device).eval()


def channels(flux: Tensor, error: Tensor) -> Tensor:
    """(n, 3, pixels) inputs of the network: flux, signal-to-noise ratio in units of ten, and whether the pixel is good; 0 in masked pixels."""
    good = torch.isfinite(error)
    flux = torch.where(good, flux, 0.0)
    ratio = torch.where(good, flux / error.clamp_min(1e-6), 0.0) / 10
    found = torch.stack([flux.clamp(-LARGEST, LARGEST), ratio.clamp(-LARGEST, LARGEST), good.float()], 1)
    assert found.shape[1] == CHANNELS
    return found


def evenly_in_log(grid: WavelengthGrid) -> WavelengthGrid:
    """A grid from the first to the last pixel of another one, evenly spaced in ln λ, with its median step."""
    places = np.log10(grid.wavelength)
    step = float(np.median(np.diff(places)))
    return WavelengthGrid("log10", float(places[0]), step, int((places[-1] - places[0]) / step) + 1)


MODEL = SpectrumResNet
