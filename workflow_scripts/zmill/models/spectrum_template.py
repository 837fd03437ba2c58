"""The classical baseline for spectra: chi-squared of PCA templates at every redshift, by Fourier transforms on ln λ.

The fit is in `zmill.networks.template_fit`, the templates in `zmill.restframe.pca`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from zmill.chunks import evenly, row_chunks
from zmill.config import ConfigError
from zmill.inputs.base import InputKind, LabelledBatch, ModelContext
from zmill.inputs.spectrum.batch import Spectra
from zmill.inputs.spectrum.continuum import level
from zmill.inputs.spectrum.kind import SpectrumKind
from zmill.models.base import Model, Settings
from zmill.networks.device import sent
from zmill.networks.losses import mean_crps
from zmill.networks.template_fit import Axis, Basis, polynomials, to_grid
from zmill.pdf.grid import Grid
from zmill.pdf.histogram import n_of_z
from zmill.pdf.values import density_at
from zmill.restframe.pca import TemplateError, Templates, of_seds, read
from zmill.restframe.seds import SedError
from zmill.sections import PathText, Several

FITTED, SELECTION_ROWS = 1000, 500
"""Rows, spread evenly, that temperature and outlier fraction are fitted to, and that select the error floor."""
NUMBERS, NUMBERS_GPU = 4 << 20, 512 << 20
"""Numbers of all correlations that are in memory at a time: those of a few spectra on a CPU, so that its cache holds them."""
TEMPERATURES = tuple(np.geomspace(0.7, 100, 32).tolist())
FLAT = 0.05
"""Fraction of the prior that is the same at all redshifts: few training rows do not show how far redshifts reach."""
OUTLIERS = (0.001, 0.003, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
Redshift = Annotated[float, Field(gt=-1, le=20)]


class SpectrumTemplateSettings(Settings):
    """Settings of the template fit to spectra."""

    seds: tuple[PathText, ...] = ()
    """Parquet files of rest-frame SEDs (`name`, `wave`, `flux`) whose PCA gives the templates of galaxies, from the folder in which
    snakemake is started unless absolute; without these and `templates`, mixtures of BPZ's templates."""
    templates: tuple[PathText, ...] = ()
    """Files of templates in redrock's format, one class of objects each; the class that fits best counts."""
    components: int = Field(8, ge=1, le=50)
    """Number of templates that are computed from SEDs."""
    redshifts: tuple[Redshift, Redshift] | None = None
    """Lowest and highest redshift at which the templates that are computed from SEDs are fitted; by default those of the redshift grid."""
    polynomial: int = Field(1, ge=0, le=20)
    """Number of Legendre polynomials of ln λ, from the constant on, that are fitted with the templates."""
    resolution: float | None = Field(None, gt=1, le=1e6)
    """Resolving power λ/FWHM that the templates are smoothed to; by default that of an FWHM of two pixels."""
    floor: Several[Annotated[float, Field(ge=0, le=10)]] = (0.01, 0.03, 0.1)
    """Error that is added to those of all pixels in quadrature, in units of the level of the spectrum; selected on validation rows."""
    prior: Literal["training", "flat"] = "training"
    """Prior of the redshift: the distribution of the training rows, or the same density at all redshifts."""

    @field_validator("redshifts")
    @classmethod
    def _in_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value and not value[0] < value[1]:
            raise ValueError(f"give the lowest and the highest redshift, found {list(value)}")
        return value


class SpectrumTemplate(Model):
    """p(z) ∝ prior(z) · max over classes of L(z)^(1 / temperature), mixed with the prior for spectra that the templates do not describe."""

    inputs = ("spectrum",)
    streams = True
    Settings = SpectrumTemplateSettings
    quick = {"components": 6, "floor": 0.1}
    min_train = 50

    settings: SpectrumTemplateSettings

    def __init__(self, settings: SpectrumTemplateSettings, context: ModelContext) -> None:
        super().__init__(settings, context)
        wavelengths = context.of(SpectrumKind).grid
        self.axis = Axis.of(wavelengths.wavelength, wavelengths.log_step, context.grid)
        self._places = torch.from_numpy(self.axis.places)
        self._polynomials = polynomials(self.axis.size, settings.polynomial)
        self._gather, self._share = to_grid(self.axis.z, context.grid)
        self.floor, self.temperature, self.outliers = settings.floor[len(settings.floor) // 2], 1.0, 0.01

    @classmethod
    def unsuitable(cls, settings: SpectrumTemplateSettings, inputs: Mapping[str, InputKind]) -> str:
        for key in ("seds", "templates"):
            for name in getattr(settings, key):
                if not Path(name).is_file():
                    return f"{key}: there is no file {name} (relative paths start from {Path.cwd()})"
        try:
            for name in settings.templates:
                read(Path(name))
        except TemplateError as error:
            return f"templates: {error}"
        return ""

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        grid = self.context.grid
        classes, seds = self._templates()
        self.names = [one.name for one in classes]
        self._set(
            [torch.as_tensor(one.scale[:, None] * one.on(self.axis.rest, self.resolution)).float() for one in classes],
            [one.z for one in classes],
            [one.absorption for one in classes],
        )
        for name, one in zip(self.names, self._bases, strict=True):
            if not one.usable.any():
                raise ConfigError(
                    f"spectrum_template: the templates of {name} cover the wavelengths of the survey at no redshift of redshift_grid at which "
                    "they are fitted: leave them out, or cut spectrum.grid to what they cover"
                )
        self.to(device)
        valid = valid.inside(grid)
        chosen = evenly(len(valid), SELECTION_ROWS)
        judged, truth = valid.batch[chosen], torch.as_tensor(valid.z[chosen], dtype=torch.float32, device=device)
        curve = []
        for floor in self.settings.floor:
            self.floor = floor
            self._calibrate(train)
            found = mean_crps(self.predict(judged), truth, grid)
            curve.append({"floor": floor, "temperature": self.temperature, "outliers": self.outliers, "crps": found})
        best = min(curve, key=lambda point: point["crps"])
        self.floor, self.temperature, self.outliers = (best[key] for key in ("floor", "temperature", "outliers"))
        log(
            f"templates: {', '.join(f'{one.count} of {name}' for name, one in zip(self.names, self._bases, strict=True))} at "
            f"{self.axis.shifts:,} redshifts; error floor {self.floor:g} of the level, temperature {self.temperature:.3g}, "
            f"outliers {self.outliers:g}"
        )
        return {
            "seds": seds,
            "templates": {name: one.count for name, one in zip(self.names, self._bases, strict=True)},
            "redshifts": self.axis.shifts,
            "floor": self.floor,
            "temperature": self.temperature,
            "outliers": self.outliers,
            "curve": curve,
        }

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        self.to(device)
        self._calibrate(rows)

    @property
    def resolution(self) -> float:
        """Resolving power of the templates."""
        pixel = float(np.median(np.diff(np.log(self.context.of(SpectrumKind).grid.wavelength))))
        return self.settings.resolution or 1 / (2 * pixel)

    def _templates(self) -> tuple[list[Templates], int]:
        """The templates of all classes, and the number of SEDs that they were computed from."""
        s = self.settings
        try:
            classes, seds = [read(Path(name)) for name in s.templates], 0
            if s.seds or not classes:
                files = [Path(name) for name in s.seds]
                galaxies, seds = of_seds(files, self.axis.rest, self.resolution, s.components)
                classes.insert(0, replace(galaxies, z=s.redshifts or galaxies.z))
        except (SedError, TemplateError) as error:
            raise ConfigError(f"spectrum_template: {error}") from None
        return classes, seds

    def _calibrate(self, rows: LabelledBatch) -> None:
        """Fit the prior, and the temperature and outlier fraction by which the redshifts of training rows are most probable."""
        grid = self.context.grid
        rows = rows.inside(grid)
        flat = torch.full((grid.size,), 1 / (grid.z_max - grid.z_min))
        self._set_prior(flat if self.settings.prior == "flat" else smooth_n_of_z(rows.z, rows.weight, grid))
        chosen = evenly(len(rows), FITTED)
        z = torch.as_tensor(rows.z[chosen], dtype=torch.float32, device=self.device)
        weight = torch.as_tensor(rows.weight[chosen], dtype=torch.float32, device=self.device)
        likelihood, best = self._likelihood(rows.batch[chosen]), -math.inf
        base = density_at(self.prior.expand(len(z), -1), grid, z)
        for temperature in TEMPERATURES:
            found = self._density_at(likelihood, temperature, z)
            for outliers in OUTLIERS:
                score = float((weight * ((1 - outliers) * found + outliers * base).clamp_min(1e-30).log()).sum())
                if score > best:
                    best, self.temperature, self.outliers = score, temperature, outliers

    def _likelihood(self, batch: Spectra) -> Tensor:
        """(n, shifts) ln of the likelihood of the class that fits best."""
        out = torch.empty(len(batch), self.axis.shifts, device=self.device)
        largest = max(one.count for one in self._bases) + self.settings.polynomial
        for rows in row_chunks(len(batch), self._at_once(self.axis.rest.size * largest * (largest + 1))):
            flux, ivar = self._pixels(batch.flux[rows], batch.ivar[rows])
            parts = [one.likelihood(flux, ivar, self._polynomials) for one in self._bases]
            out[rows] = reduce(torch.maximum, parts)
        return out

    def _pixels(self, flux: NDArray[np.float32], ivar: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        """(n, axis) fluxes in units of the level and their inverse variances, with the error floor; 0 where there is no pixel."""
        scale = level(flux, ivar)[:, None]
        values, weight = sent(flux / scale, self.device), sent(ivar * scale**2, self.device)
        weight = weight / (1 + weight * self.floor**2)
        values = torch.where(weight > 0, values, 0.0)
        if len(self._places) == self.axis.size:
            return values, weight
        # Pixels that share a point are added up with their inverse variances as weights.
        total, sums = (weight.new_zeros(len(flux), self.axis.size) for _ in range(2))
        total.index_add_(1, self._places, weight)
        sums.index_add_(1, self._places, weight * values)
        return torch.where(total > 0, sums / total.clamp_min(1e-30), 0.0), total

    def _density(self, likelihood: Tensor, temperature: float) -> Tensor:
        """(n, grid.size) densities without outliers: probabilities of the redshifts of the axis, divided among grid points."""
        probability = (likelihood / temperature + self._log_prior).softmax(1)
        return self.context.grid.normalize(torch.linalg.vecdot(probability[:, self._gather], self._share))

    def _density_at(self, likelihood: Tensor, temperature: float, z: Tensor) -> Tensor:
        """(n,) values of `_density`, not normalized, at redshifts (n,) on the grid."""
        probability = (likelihood / temperature + self._log_prior).softmax(1)
        place = ((z - self.context.grid.z_min) / self.context.grid.step).clamp(0, self.context.grid.size - 1)
        cell = place.long().clamp_max(self.context.grid.size - 2)
        left, right = (
            (probability.gather(1, self._gather[point]) * self._share[point]).sum(1) for point in (cell, cell + 1)
        )
        return torch.lerp(left, right, place - cell)

    @torch.inference_mode()
    def predict(self, batch: Spectra) -> Tensor:
        pieces = row_chunks(len(batch), self._at_once(self._gather.numel() + self.axis.shifts))
        density = torch.cat([self._density(self._likelihood(batch[rows]), self.temperature) for rows in pieces])
        return self.context.grid.normalize((1 - self.outliers) * density + self.outliers * self.prior)

    def _at_once(self, numbers: int) -> int:
        """Rows that are computed at a time, of so many numbers each."""
        return max(1, (NUMBERS if self.device.type == "cpu" else NUMBERS_GPU) // numbers)

    def _set(self, templates: list[Tensor], z: list[tuple[float, float]], absorption: list[str]) -> None:
        self._bases = [
            Basis(flux, span, self.axis, lines) for flux, span, lines in zip(templates, z, absorption, strict=True)
        ]

    def _set_prior(self, prior: Tensor) -> None:
        """Set the prior, a density on the grid, and its logarithm at the redshifts of the axis, per step of ln(1 + z)."""
        self.prior = prior.to(self.device)
        z = torch.as_tensor(self.axis.z, dtype=torch.float32, device=self.device)
        at = density_at(self.prior.expand(len(z), -1), self.context.grid, z.clamp_max(self.context.grid.z_max))
        self._log_prior = at.clamp_min(1e-12).log() + torch.log1p(z)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"templates_{number}": one.flux for number, one in enumerate(self._bases)} | {"prior": self.prior}
        facts = {name: getattr(self, name) for name in ("names", "floor", "temperature", "outliers")}
        facts |= {"z": [list(map(_finite, one.z)) for one in self._bases]}
        return tensors, facts | {"absorption": [one.absorption for one in self._bases]}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.names = list(facts["names"])
        self.floor, self.temperature, self.outliers = (
            float(facts[name]) for name in ("floor", "temperature", "outliers")
        )
        spans = [(float(low), float(high)) for low, high in facts["z"]]
        self._set([tensors[f"templates_{number}"] for number in range(len(spans))], spans, list(facts["absorption"]))
        self.prior = tensors["prior"]
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        self._places, self._polynomials = self._places.to(device), self._polynomials.to(device)
        self._gather, self._share = self._gather.to(device), self._share.to(device)
        for one in self._bases:
            one.to(device)
        if hasattr(self, "prior"):
            self._set_prior(self.prior)


def smooth_n_of_z(z: NDArray[np.float64], weight: NDArray[np.float64], grid: Grid) -> Tensor:
    """(grid.size,) density of redshifts (n,), smoothed with a Gaussian by Silverman's rule, plus a part that is flat."""
    counts = n_of_z(z, weight, grid).double().numpy()
    width = 1.06 * float(np.std(z)) * max(len(z), 1) ** -0.2
    reach = gaussian_filter1d(counts, max(width / grid.step, 1.0), mode="constant")
    found = grid.normalize(torch.as_tensor(reach).float()[None])[0]
    return (1 - FLAT) * found + FLAT / (grid.z_max - grid.z_min)


def _finite(value: float) -> float:
    return max(-1.0, min(value, 1e6))


MODEL = SpectrumTemplate
