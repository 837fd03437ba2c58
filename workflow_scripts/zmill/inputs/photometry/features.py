"""Features: photometry as the numbers that a model takes as input. Features have no NaN.

There are two forms. `Columns` has the magnitudes, measured or imputed, for the published models. `Luptitudes` has asinh-compressed
fluxes, colors, errors and masks, so that a network knows which bands were measured and how well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zmill.inputs.photometry.batch import MAGNITUDES, ZERO_POINT, Photometry, bits
from zmill.inputs.photometry.scaling import Scaler
from zmill.kernels.luptitudes import luptitudes
from zmill.networks.device import sent

CPU = torch.device("cpu")


def other_inputs(batch: Photometry, names: Sequence[str]) -> NDArray[np.float32]:
    """(n, len(names)) values of `ebv` and of extra columns; NaN where unknown."""
    out = np.empty((len(batch), len(names)), np.float32)
    for number, name in enumerate(names):
        out[:, number] = batch.ebv if name == "ebv" else batch.extra[:, batch.extra_names.index(name)]
    return out


# ------------------------------------------------------------------------------------------------ magnitudes


@dataclass(frozen=True)
class Columns:
    """Magnitudes, adjacent colors and further columns as a matrix without NaN.

    fill : (bands + len(extra),) float32, medians of the training rows; they replace values that are neither measured nor
        imputed. An undetected band with a known limit takes the limit instead.
    """

    extra: tuple[str, ...]
    colors: bool
    fill: Tensor

    @classmethod
    def fit(cls, train: Photometry, extra: Sequence[str], colors: bool) -> Columns:
        """Compute the medians of the training rows."""
        known = torch.from_numpy(np.concatenate([_magnitudes(train), other_inputs(train, extra)], axis=1))
        fill = known.nanmedian(0).values
        return cls(tuple(extra), colors, torch.nan_to_num(fill, nan=0.0))

    def __call__(self, batch: Photometry) -> Tensor:
        """(n, inputs) float32: magnitudes, extra columns, then the adjacent colors if `colors` is set."""
        return torch.from_numpy(np.ascontiguousarray(self._by_column(batch).T))

    def scaled(self, batch: Photometry, scaler: Scaler, reference: int) -> tuple[Tensor, Tensor]:
        """(n, inputs) scaled inputs, contiguous by column, and (n,) magnitudes of the reference band."""
        values = self._by_column(batch)
        magnitude = values[reference].copy()
        values -= scaler.offset.numpy()[:, None]
        values *= (1 / scaler.scale).numpy()[:, None]
        return torch.from_numpy(values).T, torch.from_numpy(magnitude)

    def _by_column(self, batch: Photometry) -> NDArray[np.float32]:
        """(inputs, n) inputs; one column at a time is several times as fast as all at once."""
        bands, known = len(batch.bands), len(self.fill)
        values = np.empty((known + (bands - 1) * self.colors, len(batch)), np.float32)
        columns = [*_magnitudes(batch).T, *other_inputs(batch, self.extra).T]
        for value, column, fill in zip(values[:known], columns, self.fill.numpy(), strict=True):
            value[:] = np.where(np.isfinite(column), column, fill)
        if self.colors:
            np.subtract(values[: bands - 1], values[1:bands], out=values[known:])
        return values


def _magnitudes(batch: Photometry) -> NDArray[np.float32]:
    """(n, bands) magnitudes, measured or imputed; the limits of undetected bands; not finite where neither is known."""
    return np.where(np.isfinite(batch.mag), batch.mag, batch.maglim)


# ------------------------------------------------------------------------------------------------ luptitudes


class Fluxes(NamedTuple):
    """Photometry as fluxes, the form in which noise can be added.

    flux : (n, bands) nJy; 0 where undetected or unobserved.
    error : (n, bands) nJy; for an undetected band the flux of its limit; NaN where unknown.
    observed : (n, bands) bool; measured or undetected. An imputed band is not observed.
    undetected : (n, bands) bool.
    other : (n, k) further inputs, NaN where unknown.
    """

    flux: Tensor
    error: Tensor
    observed: Tensor
    undetected: Tensor
    other: Tensor

    @classmethod
    def of(cls, batch: Photometry, extra: Sequence[str], device: torch.device = CPU) -> Fluxes:
        """Fluxes of a batch, on a device."""
        measured, undetected = sent(batch.measured, device), sent(bits(batch.undetected, len(batch.bands)), device)
        raw = torch.pow(10.0, 0.4 * (ZERO_POINT - sent(batch.mag, device)))
        flux = torch.where(measured, raw, 0.0)
        limit = torch.pow(10.0, 0.4 * (ZERO_POINT - sent(batch.maglim, device)))
        error = torch.where(undetected, limit, raw * sent(batch.magerr, device) / MAGNITUDES)
        return cls(flux, error, measured | undetected, undetected, sent(other_inputs(batch, extra), device))

    def rows(self, rows: Tensor | slice) -> Fluxes:
        """A subset of the rows; an index of any shape puts its axes in front."""
        return Fluxes(*(field[rows] for field in tuple(self)))

    def resampled(self, scale: float, generator: torch.Generator) -> Fluxes:
        """Fluxes with Gaussian noise of `scale` times their errors added; a band of unknown error is unchanged."""
        noise = torch.randn(self.flux.shape, generator=generator, device=self.flux.device)
        known = self.observed & ~self.undetected & (self.error > 0)
        return self._replace(flux=torch.where(known, self.flux + scale * self.error * noise, self.flux))

    def blended(self, others: Fluxes, most: float, generator: torch.Generator) -> Fluxes:
        """Each row with a random fraction of its light, up to `most`, replaced by as much light with the colors of the other row.

        A blend of two rows of nearly the same redshift is a plausible galaxy that is not in the training sample.
        """
        part = most * torch.rand((*self.flux.shape[:-1], 1), generator=generator, device=self.flux.device)
        both = self.observed & others.observed
        own, other = (torch.where(both, f.clamp_min(0), 0.0).sum(-1, keepdim=True) for f in (self.flux, others.flux))
        light = torch.where((own > 0) & (other > 0), own / other, 1.0)
        return self._replace(flux=torch.where(both, torch.lerp(self.flux, others.flux * light, part), self.flux))

    def limits(self) -> Tensor:
        """(bands,) typical error of an undetected band, nJy; NaN where no row has one."""
        return torch.where(self.undetected, self.error, torch.nan).nanmedian(0).values

    def dropped(self, fraction: float, limits: Tensor, generator: torch.Generator) -> Fluxes:
        """Drop each band with probability 1/4 in a random fraction of the rows.

        Two thirds of the dropped bands become unobserved, one third undetected with the errors `limits` (bands,).
        """
        shape, device = self.flux.shape, self.flux.device
        row = torch.rand((*shape[:-1], 1), generator=generator, device=device) < fraction
        fate = torch.rand(shape, generator=generator, device=device)
        lost = row & (fate < 0.25)
        observed = self.observed & ~(lost & (fate >= 0.25 / 3))
        failed = lost & observed
        return self._replace(
            flux=torch.where(observed & ~failed, self.flux, 0.0),
            error=torch.where(failed & ~self.undetected, limits, self.error),
            observed=observed,
            undetected=(self.undetected | failed) & observed,
        )


def softening_of(train: Fluxes) -> Tensor:
    """(bands,) softening of luptitudes in nJy: the median error of the detected training rows, 1 where nothing is known.

    In a survey without errors, the 0.1-quantile of the fluxes is assumed to be a 5 sigma detection. With the median instead, half
    of the rows would have colors that are compressed; forests were worse with it on validation rows of SDSS DR14.
    """
    detected = train.observed & ~train.undetected
    noise = torch.where(detected & (train.error > 0), train.error, torch.nan).nanmedian(0).values
    faint = 0.2 * torch.nanquantile(torch.where(detected, train.flux, torch.nan)[:200_000], 0.1, dim=0)
    softening = torch.where(torch.isfinite(noise), noise, faint)
    return torch.where(torch.isfinite(softening) & (softening > 0), softening, 1.0)


class Luptitudes(nn.Module):
    """Fluxes to standardized inputs: luptitudes, adjacent colors, noise, masks, further columns.

    The luptitude is asinh(f / 2s) (Lupton, Gunn & Szalay 1999, eq. 3, up to sign and zero point). The softening s is the
    typical noise of the band: the luptitude is linear in flux below it and a magnitude above it, and is also defined for
    undetected bands. Offsets, scales and softening are fitted on training rows.
    """

    softening: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(self, bands: int, others: int) -> None:
        super().__init__()
        self.bands, self.others = bands, others
        self.plain = bands + (bands - 1)
        """Luptitudes and colors: the first of the inputs."""
        self.size = self.plain + bands + bands + bands + others
        self.register_buffer("softening", torch.ones(bands))
        self.register_buffer("offset", torch.zeros(self.size))
        self.register_buffer("scale", torch.ones(self.size))

    def fit(self, train: Fluxes) -> None:
        """Fit softening, offsets and scales. Missing values are left out."""
        self.softening.copy_(softening_of(train))
        values, valid = self._raw(train)
        values = torch.where(valid, values, torch.nan)
        mean = values.nanmean(0)
        deviation = (values - mean).square().nanmean(0).sqrt()
        self.offset.copy_(torch.nan_to_num(mean, nan=0.0))
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def forward(self, fluxes: Fluxes) -> Tensor:
        """(..., size) float32: standardized, 0 where missing, clipped to ±8 standard deviations."""
        values, valid = self._raw(fluxes)
        return torch.where(valid, (values - self.offset) / self.scale, 0.0).clamp(-8, 8)

    def of(self, batch: Photometry, extra: Sequence[str]) -> Tensor:
        """`forward` of the fluxes of a batch: (n, size) float32; on a CPU in one compiled pass."""
        if self.offset.device.type != "cpu":
            return self(Fluxes.of(batch, extra, self.offset.device))
        learned = (one.numpy() for one in (self.softening, self.offset, 1 / self.scale))
        masks = batch.undetected, batch.unobserved, batch.imputed
        other = other_inputs(batch, extra)
        return torch.from_numpy(luptitudes(ZERO_POINT, batch.mag, batch.magerr, batch.maglim, *masks, other, *learned))

    def _raw(self, fluxes: Fluxes) -> tuple[Tensor, Tensor]:
        bands = fluxes.observed
        compressed = torch.asinh(fluxes.flux / (2 * self.softening))
        luptitude = -MAGNITUDES * (compressed + self.softening.log())
        error = torch.where(fluxes.error > 0, fluxes.error, self.softening)
        noise = torch.log(error / self.softening + 1e-6)
        pair = bands[..., :-1] & bands[..., 1:]
        always = torch.ones_like(bands)
        values = [
            compressed,
            luptitude[..., :-1] - luptitude[..., 1:],
            noise,
            fluxes.undetected.float(),
            bands.float(),
            fluxes.other,
        ]
        valid = [bands, pair, bands, always, always, torch.isfinite(fluxes.other)]
        return torch.cat(values, dim=-1), torch.cat(valid, dim=-1)
