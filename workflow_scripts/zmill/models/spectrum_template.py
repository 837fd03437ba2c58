"""The classical baseline for spectra: chi-squared of PCA templates at every redshift, by Fourier transforms on ln λ.

At a redshift, a spectrum is fitted by the templates shifted to it: a small least-squares problem whose matrix has the sums of
ivar · T_k · T_l over pixels, and whose right side has those of ivar · flux · T_k. As functions of the redshift both are correlations
along ln λ (Tonry & Davis 1979; Bolton et al. 2012, sect. 3), so that all redshifts cost O(N log N).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from zmill.chunks import row_chunks
from zmill.config import ConfigError
from zmill.inputs.base import InputKind, LabelledBatch, ModelContext, evenly
from zmill.inputs.spectrum.batch import Spectra
from zmill.inputs.spectrum.continuum import level
from zmill.inputs.spectrum.grid import WavelengthGrid
from zmill.inputs.spectrum.kind import SpectrumKind
from zmill.models.base import Model, Settings
from zmill.models.pca import SedError, TemplateError, Templates, of_seds, read
from zmill.networks.device import sent
from zmill.networks.losses import mean_crps
from zmill.networks.spectral import fast_length
from zmill.pdf.grid import Grid
from zmill.pdf.histogram import n_of_z
from zmill.pdf.values import density_at
from zmill.sections import PathText
from zmill.simulate.spectrograph import Cells

FITTED, SELECTION_ROWS = 1000, 500
"""Rows, spread evenly, that temperature and outlier fraction are fitted to, and that select the error floor."""
NUMBERS, NUMBERS_GPU = 4 << 20, 512 << 20
"""Numbers of all correlations that are in memory at a time: those of a few spectra on a CPU, so that its cache holds them."""
WIDTH = 0.5
"""Standard deviation of the coefficients in units of that of the SEDs, whose libraries have more extremes than the sky."""
POLYNOMIAL = 0.3
"""Standard deviation of the coefficients of the polynomial, in units of the level of the spectrum."""
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
    floor: tuple[Annotated[float, Field(ge=0, le=10)], ...] = (0.01, 0.03, 0.1)
    """Error that is added to those of all pixels in quadrature, in units of the level of the spectrum; selected on validation rows."""
    prior: Literal["training", "flat"] = "training"
    """Prior of the redshift: the distribution of the training rows, or the same density at all redshifts."""

    @field_validator("floor", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value

    @field_validator("redshifts")
    @classmethod
    def _in_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value and not value[0] < value[1]:
            raise ValueError(f"give the lowest and the highest redshift, found {list(value)}")
        return value

    @field_validator("floor")
    @classmethod
    def _some(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value:
            raise ValueError("give at least one number")
        return tuple(sorted(set(value)))


@dataclass(frozen=True)
class Axis:
    """An axis of evenly spaced ln λ that has all pixels, and the redshifts that are shifts by a number of its steps.

    The last redshift may be beyond the redshift grid by less than a step.

    start : ln λ of its first point, Angstrom. step : distance of two points. size : number of points.
    places : (pixels) the point of each pixel. z : (shifts) redshifts.
    """

    start: float
    step: float
    size: int
    places: NDArray[np.int64]
    z: NDArray[np.float64]

    @classmethod
    def of(cls, wavelengths: WavelengthGrid, grid: Grid) -> Axis:
        """The axis of a survey. Neighboring redshifts are no further apart than the points of the redshift grid.

        Pixels that are evenly spaced in ln λ are points of the axis; others are put on the nearest point, at most a quarter of a pixel
        away.
        """
        finest = grid.step / (1 + grid.z_max)
        place = np.log(wavelengths.wavelength)
        pixel = wavelengths.log_step or float(np.median(np.diff(place))) / 2
        step = pixel / math.ceil(pixel / finest)
        places = np.rint((place - place[0]) / step).astype(np.int64)
        shifts = math.ceil(math.log((1 + grid.z_max) / (1 + grid.z_min)) / step - 1e-6) + 1
        z = (1 + grid.z_min) * np.exp(step * np.arange(shifts)) - 1
        return cls(float(place[0]), step, int(places[-1]) + 1, places, z)

    @property
    def shifts(self) -> int:
        """Number of redshifts."""
        return len(self.z)

    @property
    def rest(self) -> Cells:
        """The rest-frame wavelengths that are seen at any redshift, a cell for each point."""
        first = self.start - math.log1p(self.z[-1]) - self.step / 2
        return Cells(first, self.step, self.size + self.shifts - 1)


class Basis:
    """The templates of one class, ready for correlations.

    Parameters
    ----------
    flux : (k, rest) templates, each times the standard deviation of its coefficient.
    z : lowest and highest redshift at which they are fitted.
    """

    def __init__(self, flux: Tensor, z: tuple[float, float], axis: Axis) -> None:
        self.flux, self.z, self.axis = flux, z, axis
        self.count, self.length = len(flux), fast_length(axis.rest.size)
        rows, columns = torch.tril_indices(self.count, self.count)
        self.spectra = torch.fft.rfft(flux, self.length)
        self.products = torch.fft.rfft(flux[rows] * flux[columns], self.length)
        # The level of a spectrum is one wherever it is seen: coefficients are in units of the templates' mean flux there.
        total = torch.nn.functional.pad(flux.double().square().sum(0).sqrt().cumsum(0), (1, 0))
        seen = (total[axis.size :] - total[: axis.shifts]) / axis.size
        self.precision = (seen.square() / WIDTH**2).float()
        covered = (flux != 0).any(0).double().cumsum(0)
        covered = torch.nn.functional.pad(covered, (1, 0))
        complete = (covered[axis.size :] - covered[: axis.shifts]) >= axis.size
        redshifts = torch.as_tensor(axis.z).flip(0)
        self.usable = complete & (redshifts >= z[0]) & (redshifts <= z[1])

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        for name in ("flux", "spectra", "products", "precision", "usable"):
            setattr(self, name, getattr(self, name).to(device))

    def likelihood(self, flux: Tensor, ivar: Tensor, polynomials: Tensor) -> Tensor:
        """(n, shifts) ln of the marginal likelihood of the spectra at the redshifts of the axis, up to a constant per spectrum.

        The coefficients have a Gaussian prior, and are integrated out: with M the normal matrix plus the inverse variances of the
        prior, and y the right side, it is yᵀ M⁻¹ y / 2 − ln det M / 2 + ln det(prior) / 2. At redshifts at which the templates do not
        cover the spectrum it is −∞.

        flux, ivar : (n, axis) in units of the level, 0 where there is no pixel. polynomials : (p, axis).
        """
        weighted = ivar * flux
        products = self._correlated(ivar[:, None], self.products)
        rows = list(products.split(list(range(1, self.count + 1)), 1))
        right = list(self._correlated(weighted[:, None], self.spectra).unbind(1))
        for number, row in enumerate(rows):
            row[:, number] += self.precision
        for number, values in enumerate(polynomials):
            along = self._correlated((ivar * values)[:, None], self.spectra)
            own = (ivar @ (values * polynomials[: number + 1]).T)[..., None].expand(-1, -1, self.axis.shifts)
            row = torch.cat([along, own], 1)
            row[:, -1] += POLYNOMIAL**-2
            rows.append(row)
            right.append((weighted @ values)[:, None].repeat(1, self.axis.shifts))
        found = reduction(rows, right).add_(self.precision.log(), alpha=self.count / 2)
        return found.masked_fill_(~self.usable, -torch.inf).flip(1)

    def _correlated(self, values: Tensor, templates: Tensor) -> Tensor:
        """(n, k, shifts) sums of values (n, 1, axis) times transformed templates (k, frequencies), from the largest redshift on."""
        transformed = torch.fft.rfft(values, self.length).conj() * templates
        return torch.fft.irfft(transformed, self.length)[..., : self.axis.shifts]


def reduction(rows: list[Tensor], right: list[Tensor]) -> Tensor:
    """(n, s) yᵀ M⁻¹ y / 2 − ln det M / 2 of many small symmetric positive definite matrices, by Cholesky's decomposition.

    Parameters
    ----------
    rows : row i of the lower triangle, (n, i + 1, s) each; overwritten.
    right : y, (n, s) for each row; overwritten.
    """
    found = torch.zeros_like(right[0])
    columns = found.new_empty(found.shape[0], len(rows), found.shape[1])
    for j, row in enumerate(rows):
        pivot = row[:, j].clamp_min(1e-20)
        found.sub_(pivot.log(), alpha=0.5)
        inverse = pivot.rsqrt()
        solved = right[j].mul_(inverse)
        found.addcmul_(solved, solved, value=0.5)
        for i in range(j + 1, len(rows)):
            torch.mul(rows[i][:, j], inverse, out=columns[:, i])
            right[i].addcmul_(columns[:, i], solved, value=-1)
            rows[i][:, j + 1 :].addcmul_(columns[:, j + 1 : i + 1], columns[:, i, None], value=-1)
    return found


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
        self.axis = Axis.of(context.of(SpectrumKind).grid, context.grid)
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

    def _set(self, templates: list[Tensor], z: list[tuple[float, float]]) -> None:
        self._bases = [Basis(flux, span, self.axis) for flux, span in zip(templates, z, strict=True)]

    def _set_prior(self, prior: Tensor) -> None:
        """Set the prior, a density on the grid, and its logarithm at the redshifts of the axis, per step of ln(1 + z)."""
        self.prior = prior.to(self.device)
        z = torch.as_tensor(self.axis.z, dtype=torch.float32, device=self.device)
        at = density_at(self.prior.expand(len(z), -1), self.context.grid, z.clamp_max(self.context.grid.z_max))
        self._log_prior = at.clamp_min(1e-12).log() + torch.log1p(z)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"templates_{number}": one.flux for number, one in enumerate(self._bases)} | {"prior": self.prior}
        facts = {name: getattr(self, name) for name in ("names", "floor", "temperature", "outliers")}
        return tensors, facts | {"z": [list(map(_finite, one.z)) for one in self._bases]}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.names = list(facts["names"])
        self.floor, self.temperature, self.outliers = (
            float(facts[name]) for name in ("floor", "temperature", "outliers")
        )
        spans = [(float(low), float(high)) for low, high in facts["z"]]
        self._set([tensors[f"templates_{number}"] for number in range(len(spans))], spans)
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


def polynomials(size: int, count: int) -> Tensor:
    """(count, size) the first Legendre polynomials, from −1 at the first point to 1 at the last."""
    x = np.linspace(-1, 1, size)
    return torch.as_tensor(np.polynomial.legendre.legvander(x, max(count - 1, 0)).T[:count].copy()).float()


def to_grid(z: NDArray[np.float64], grid: Grid) -> tuple[Tensor, Tensor]:
    """How probabilities of redshifts, evenly spaced in ln(1 + z), become densities at grid points: each is divided among the two nearest
    points, so that none is lost however narrow a peak is. A density that is the same at all redshifts stays so.

    Returns
    -------
    (size, c) numbers of the redshifts that are near each point, and (size, c) densities that a probability of one gives it.
    """
    position = np.minimum((z - grid.z_min) / grid.step, grid.size - 1)
    points = np.arange(grid.size)
    first = np.searchsorted(position, points - 1, side="right")
    last = np.searchsorted(position, points + 1, side="left")
    near = first[:, None] + np.arange(max(int((last - first).max()), 1))
    inside = near < last[:, None]
    near = np.minimum(near, len(z) - 1)
    share = np.where(inside, 1 - np.abs(position[near] - points[:, None]), 0.0)
    share /= (share * (1 + z[near])).sum(1, keepdims=True) * math.log((1 + z[1]) / (1 + z[0]))
    return torch.from_numpy(near), torch.as_tensor(share).float()


MODEL = SpectrumTemplate
