"""Bayesian template fit: spectra are fitted to the fluxes in the survey's filters, with a prior on redshift and type.

Benitez 2000 (BPZ), written as two matrix products per batch, so that the fit of all templates at all redshifts costs no more
than the exponential of its result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from zmill import sed
from zmill.chunks import evenly
from zmill.config import ConfigError
from zmill.inputs.base import InputKind, LabelledBatch, ModelContext
from zmill.inputs.photometry.batch import MAGNITUDES, Photometry
from zmill.inputs.photometry.features import Columns, Fluxes
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.models import base
from zmill.models.base import Model
from zmill.networks.losses import mean_crps
from zmill.pdf.grid import Grid
from zmill.sections import Several

SELECTION_ROWS = 3_000
"""Most validation rows on which the error floor and the smoothing are selected."""
FITTED = 20_000
"""Most training rows to which the zero points are fitted."""
ENOUGH = 100
"""With fewer training rows the zero points stay 0."""
ROUNDS = 10
"""Iterations of the alternating fit of types and zero points."""
CELLS = 1 << 17
"""Redshifts times templates times rows computed at a time, so that they stay in the cache of a CPU."""
CELLS_GPU = 1 << 27
MAGNITUDE_STEP = 0.1
"""The prior is tabulated at reference magnitudes this far apart, as BPZ does."""
TAIL = 0.01
"""The prior of a class is set to zero below this fraction of a flat prior, as in BPZ: so low probabilities were never measured."""
NOTHING = -60.0
"""Natural logarithm of the lowest prior relative to its peak; it is finite so that the photometry can overrule it."""
NORMALIZED_IN = "bessell-B"
"""Rest-frame filter in which all spectra have the same flux: mixtures and the marginal amplitude depend on it."""

CLASSES = (0, 1, 1, 2, 2, 2, 2, 2)
"""Class (E, Sp, Irr) of each of the spectra `sed.BPZ_TEMPLATES`."""


class TemplateSettings(base.Settings):
    """Settings of the template fit."""

    prior: Literal["ngvs", "hdfn", "flat"] = "ngvs"
    """p(z, type | reference magnitude): `hdfn` of Benitez 2000, `ngvs` of Raichoor et al. 2014, or none."""
    per_gap: int = Field(2, ge=0, le=100)
    """Number of mixtures between each template and the next."""
    amplitude: Literal["profile", "marginal"] = "profile"
    """Amplitude of each template: the best fit, as in desc-bpz, or integrated over (factor F_TT^-1/2)."""
    floor: Several[Annotated[float, Field(ge=0, le=10)]] = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
    """Error in magnitudes of the templates themselves, added in quadrature; selected on validation rows."""
    smoothing: Several[Annotated[float, Field(ge=0, le=1)]] = (0.0, 0.01, 0.02, 0.04, 0.06)
    """Standard deviation in redshift of the Gaussian that smooths the density; selected on validation rows."""
    zero_points: bool = True
    """Fit an offset per band on training rows at their spectroscopic redshifts."""
    igm: bool = True
    """Absorption by the intergalactic medium (Madau 1995)."""


# ------------------------------------------------------------------------------------------------ priors


@dataclass(frozen=True)
class PriorBin:
    """Benitez 2000, eq. 22-24, for reference magnitudes from `bright`.

    types : (fraction, decline with magnitude) of E and Sp at `bright`; the rest is Irr.
    redshifts : (alpha, z0, slope) of E, Sp, Irr.
    """

    bright: float
    types: tuple[tuple[float, float], tuple[float, float]]
    redshifts: tuple[tuple[float, float, float], ...]


HDFN = (
    PriorBin(
        20.0,
        ((0.35, 0.450), (0.50, 0.147)),
        ((2.465, 0.431, 0.0913), (1.806, 0.390, 0.0636), (0.906, 0.0626, 0.123)),
    ),
)
"""Benitez 2000, table 1: Hubble Deep Field North, F814W."""
NGVS = (
    PriorBin(12.5, ((0.86, 0.062), (0.14, -0.108)), ((2.46, 0.0, 0.027), (2.07, 0.0, 0.021), (1.89, 0.0, 0.15))),
    PriorBin(17.0, ((0.65, 0.257), (0.23, -0.014)), ((2.46, 0.121, 0.103), (1.94, 0.095, 0.098), (1.95, 0.069, 0.077))),
    PriorBin(20.0, ((0.30, 0.40), (0.35, 0.30)), ((2.46, 0.431, 0.091), (1.81, 0.390, 0.100), (2.00, 0.300, 0.150))),
)
"""Raichoor et al. 2014: Next Generation Virgo Survey, i band, with spectra down to the bright end."""


def prior_magnitudes() -> np.ndarray:
    """(m,) reference magnitudes of the tabulated prior."""
    return np.round(np.arange(12.0, 32.0 + MAGNITUDE_STEP / 2, MAGNITUDE_STEP), 6)


def log_prior(kind: str, z: np.ndarray, per_gap: int) -> np.ndarray:
    """Natural logarithm of p(z, template | reference magnitude), up to a constant per magnitude.

    kind : `hdfn`, `ngvs` or `flat`; z : (g,) redshifts, evenly spaced; per_gap : mixtures between two templates.

    Returns
    -------
    (m, templates, g) float32 at `prior_magnitudes()`. The fraction of a class is divided equally among its templates; a
    mixture of two templates has the mixture of their priors.
    """
    magnitudes = prior_magnitudes()
    templates = (len(CLASSES) - 1) * (per_gap + 1) + 1
    if kind == "flat":
        return np.zeros((len(magnitudes), templates, len(z)), np.float32)
    per_class = np.stack([_class_prior(HDFN if kind == "hdfn" else NGVS, m, z) for m in magnitudes])
    members = np.bincount(CLASSES)
    fractions = np.eye(3)[list(CLASSES)] / members
    position = np.arange(templates) / (per_gap + 1)
    low = np.minimum(position.astype(int), len(CLASSES) - 2)
    part = (position - low)[:, None]
    mixed = (1 - part) * fractions[low] + part * fractions[low + 1]
    prior = np.einsum("tc,mcg->mtg", mixed, per_class)
    prior /= prior.max(axis=(1, 2), keepdims=True)
    return np.log(np.maximum(prior, np.exp(NOTHING))).astype(np.float32)


def _class_prior(bins: tuple[PriorBin, ...], magnitude: float, z: np.ndarray) -> np.ndarray:
    """(3, g) probabilities of E, Sp and Irr at the redshifts, all summing to 1."""
    if bins is NGVS and magnitude < bins[0].bright:
        return np.full((3, len(z)), 1 / (3 * len(z)))
    magnitude = max(magnitude, bins[0].bright)
    chosen = [b for b in bins if b.bright <= magnitude][-1]
    dm = magnitude - chosen.bright
    fractions = [f * np.exp(-k * dm) for f, k in chosen.types]
    fractions.append(max(1 - sum(fractions), 0.0))
    alpha, z0, slope = (column[:, None] for column in np.array(chosen.redshifts).T)
    scale = np.clip(z0 + slope * dm, 0.01, 15.0)
    shape = z**alpha * np.exp(-((z / scale) ** alpha))
    shape = np.maximum(shape, 1e-300)  # with a scale far below the grid step, all values on the grid underflow
    shape /= shape.sum(1, keepdims=True)
    shape = np.where(shape * len(z) < TAIL, 0.0, shape)
    return np.array(fractions)[:, None] * shape / shape.sum(1, keepdims=True)


# ------------------------------------------------------------------------------------------------ the fit


def template_fluxes(filters: tuple[sed.Filter, ...], z: np.ndarray, per_gap: int, igm: bool) -> np.ndarray:
    """(g, templates, bands) fluxes of BPZ's spectra and their mixtures, all of the same rest-frame B flux."""
    spectra = sed.normalized(sed.load_templates(), sed.load_filters([NORMALIZED_IN])[0])
    return sed.flux_table(sed.interpolated(spectra, per_gap), filters, z, igm)


class TemplateFit(Model):
    """p(z) = sum over templates of prior times likelihood; the amplitude of each template is free."""

    Settings = TemplateSettings
    quick = {"floor": 0.05, "smoothing": 0.02}
    min_train = 1

    settings: TemplateSettings

    def __init__(self, settings: TemplateSettings, context: ModelContext) -> None:
        super().__init__(settings, context)
        self._log_prior = torch.from_numpy(log_prior(settings.prior, context.grid.z, settings.per_gap))

    @classmethod
    def unsuitable(cls, settings: TemplateSettings, inputs: Mapping[str, InputKind]) -> str:
        kind = inputs["photometry"]
        assert isinstance(kind, PhotometryKind)
        absent = [band for band in kind.bands if band not in kind.filters]
        if not absent:
            return ""
        return (
            f"the template fit needs the filter curve of every band; {', '.join(absent)} has none: name it under `filters:` of the survey "
            "definition, as speclite does (sdss2010-r, decam2014-g, lsst2023-i, …), or leave the model out"
        )

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        s, context = self.settings, self.context
        names = context.of(PhotometryKind).filters
        if reason := self.unsuitable(s, {kind.name: kind for kind in context.inputs}):
            raise ConfigError(reason)
        try:
            filters = sed.load_filters([names[band] for band in context.of(PhotometryKind).bands])
        except ValueError as error:
            raise ConfigError(f"the survey definition's filters: {error}") from None
        self.table = torch.from_numpy(template_fluxes(filters, context.grid.z, s.per_gap, s.igm)).float()
        self.floor, self.smoothing = s.floor[len(s.floor) // 2], 0.0
        self.refit(train, device, log)
        valid = valid.inside(context.grid)
        selected = evenly(len(valid), SELECTION_ROWS)
        curve = self._curve(valid.batch[selected], torch.as_tensor(valid.z[selected], dtype=torch.float32))
        best = min(curve, key=lambda point: point["crps"])
        self.floor, self.smoothing = best["floor"], best["smoothing"]
        self.to(device)
        offsets = {
            band: round(float(zero), 4)
            for band, zero in zip(context.of(PhotometryKind).bands, self.zero_points, strict=True)
        }
        log(f"zero points {offsets}; error floor {self.floor:g} mag, smoothing {self.smoothing:g}")
        return {
            "templates": self.table.shape[1],
            "zero_points": offsets if self.zero_points.any() else None,
            "floor": self.floor,
            "smoothing": self.smoothing,
            "curve": curve,
        }

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        self.columns = Columns.fit(rows.batch, (), False)
        self.zero_points = torch.zeros(len(self.context.of(PhotometryKind).bands))
        self.to(device)
        rows = rows.inside(self.context.grid)
        if self.settings.zero_points and len(rows) >= ENOUGH:
            self.zero_points = self._fit_zero_points(rows).cpu()
            self.to(device)

    def _curve(self, batch: Photometry, z: Tensor) -> list[dict[str, float]]:
        """CRPS of validation rows for every error floor and smoothing."""
        grid, z, curve = self.context.grid, z.to(self.device), []
        for floor in self.settings.floor:
            self.floor = floor
            plain = self._plain(batch)
            for width in self.settings.smoothing:
                density = grid.normalize(plain @ smoothing(grid, width).to(self.device))
                curve.append({"floor": self.floor, "smoothing": width, "crps": mean_crps(density, z, grid)})
        return curve

    def _fit_zero_points(self, train: LabelledBatch) -> Tensor:
        """(bands,) magnitudes to subtract: the median residual of the best template at the spectroscopic redshift.

        The zero point of the reference band is 0, because an offset common to all bands is a change of amplitude.
        """
        rows = evenly(len(train), FITTED)
        grid = self.context.grid
        flux, weight = self._fluxes(train.batch[rows])
        z = torch.as_tensor(train.z[rows], dtype=torch.float32, device=self.device)
        position = (z - grid.z_min) / grid.step
        cell = position.long().clamp(0, grid.size - 2)
        model = torch.lerp(self.table[cell], self.table[cell + 1], (position - cell)[:, None, None])
        total = torch.zeros(flux.shape[1], device=self.device)
        bright = flux * weight.sqrt() > 5
        for _ in range(ROUNDS):
            scale = torch.pow(10.0, 0.4 * total)
            ot = torch.einsum("nb,ntb->nt", weight * flux / scale, model)
            tt = torch.einsum("nb,ntb->nt", weight / scale.square(), model.square()).clamp_min(1e-30)
            kind = (ot.clamp_min(0).square() / tt).argmax(1, keepdim=True)
            amplitude = (ot / tt).gather(1, kind)
            expected = amplitude * model.gather(1, kind[..., None].expand(-1, -1, model.shape[2]))[:, 0]
            usable = bright & (expected > 0)
            residual = -MAGNITUDES * torch.log(flux / expected.clamp_min(1e-30))
            offset = torch.where(usable, residual, torch.nan).nanmedian(0).values
            offset = torch.nan_to_num(offset, nan=0.0)
            total = offset - offset[self.context.of(PhotometryKind).reference]
        return total

    @torch.inference_mode()
    def predict(self, batch: Photometry) -> Tensor:
        density = self._plain(batch)
        return self.context.grid.normalize(density @ self._smoothing if self.smoothing else density)

    def _plain(self, batch: Photometry) -> Tensor:
        """(n, size) posterior, up to a factor per row, before smoothing."""
        flux, weight = self._fluxes(batch)
        magnitude = self.columns(batch)[:, self.context.of(PhotometryKind).reference]
        first, count = float(prior_magnitudes()[0]), len(self._log_prior)
        level = ((magnitude - first) / MAGNITUDE_STEP).round().long().clamp(0, count - 1).to(self.device)
        size, marginal = self.context.grid.size, self.settings.amplitude == "marginal"
        return posterior(weight * flux, weight, level, self._matrix, self._squares, self._prior, size, marginal)

    def _fluxes(self, batch: Photometry) -> tuple[Tensor, Tensor]:
        """(n, bands) fluxes with the zero points applied, and inverse variances, 0 where the flux is unknown.

        A non-detection is the flux 0 with the limit as its standard deviation. A measurement of unknown error has the
        error floor alone.
        """
        fluxes = Fluxes.of(batch, (), self.device)
        scale = torch.pow(10.0, 0.4 * self._zero)
        flux = fluxes.flux * scale
        error = torch.nan_to_num(fluxes.error, nan=0.0, posinf=0.0) * scale
        variance = error.square() + (max(self.floor, 1e-3) / MAGNITUDES * flux).square()
        return flux, torch.where(fluxes.observed & (variance > 0), 1 / variance.clamp_min(1e-30), 0.0)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {"table": self.table, "zero_points": self.zero_points, "fill": self.columns.fill}
        return tensors, {"floor": self.floor, "smoothing": self.smoothing}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.columns = Columns((), False, tensors["fill"])
        self.table, self.zero_points = tensors["table"], tensors["zero_points"]
        self.floor, self.smoothing = float(facts["floor"]), float(facts["smoothing"])
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.table = self.table.to(device)
        self._zero = self.zero_points.to(device)
        self._matrix = self.table.permute(2, 1, 0).flatten(1).contiguous()
        self._squares = self._matrix.square()
        self._prior = self._log_prior.flatten(1).to(device)
        self._smoothing = smoothing(self.context.grid, self.smoothing).to(device)


def posterior(
    wf: Tensor, w: Tensor, level: Tensor, matrix: Tensor, squares: Tensor, prior: Tensor, size: int, marginal: bool
) -> Tensor:
    """(n, size) posterior of the redshifts, summed over templates; the largest cell of a row counts 1.

    With F_OT = sum w f T and F_TT = sum w T^2 over bands: ln p = max(F_OT, 0)^2 / (2 F_TT) - ln F_TT / 2 + ln prior
    (Benitez 2000, eq. 12, the brightness integrated out; F_OO is the same for all cells of a row).

    Parameters
    ----------
    wf, w : (n, bands) inverse variance times flux, and inverse variance.
    level : (n,) row of the prior.
    matrix, squares : (bands, templates * size) fluxes of the templates, redshift running fastest, and their squares.
    prior : (m, templates * size) natural logarithms.
    size : redshifts.
    marginal : with the term in ln F_TT.
    """
    out = torch.empty(len(wf), size, device=wf.device)
    order = level.argsort()  # rows of one magnitude share a row of the prior, which then stays in the cache
    cells = matrix.shape[1]
    rows = max(1, (CELLS if wf.device.type == "cpu" else CELLS_GPU) // cells)
    for part in order.split(rows):
        fit = wf[part] @ matrix
        tt = (w[part] @ squares).clamp_min_(1e-30)
        fit.clamp_min_(0).square_().div_(tt).mul_(0.5)
        if marginal:
            fit.sub_(tt.log_(), alpha=0.5)
        fit.add_(prior[level[part]])
        fit.sub_(fit.amax(1, keepdim=True)).exp_()
        out[part] = fit.view(len(part), -1, size).sum(1)
    return out


def smoothing(grid: Grid, width: float) -> Tensor:
    """(size, size) matrix that convolves densities with a Gaussian of standard deviation `width` in redshift."""
    if not width:
        return torch.eye(grid.size)
    z = grid.tensor()
    return torch.exp(-0.5 * ((z - z[:, None]) / width).square())


MODEL = TemplateFit
