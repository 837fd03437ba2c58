"""Features: photometry as the numbers that a model takes as input. Features have no NaN.

There are two forms. `Columns` has the magnitudes, measured or imputed, for the published models. `Luptitudes` has asinh-compressed
fluxes, colors, errors and masks, so that a network knows which bands were measured and how well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zmill.inputs.photometry.batch import MAGNITUDES, MASKS, ZERO_POINT, Photometry, bits
from zmill.inputs.photometry.scaling import Scaler
from zmill.kernels.simd import INTS, LANES, Code, Compiled, Shape, Value, a_block_at_least
from zmill.networks.device import sent

CPU = torch.device("cpu")
MOST = 60.0
"""Exponents of 2 are clipped to ± this value when a magnitude is converted to a flux in nJy."""


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
        known = torch.from_numpy(_magnitudes_and_extra(train, extra))
        fill = known.nanmedian(0).values
        return cls(tuple(extra), colors, torch.nan_to_num(fill, nan=0.0))

    def __call__(self, batch: Photometry) -> Tensor:
        """(n, inputs) float32: magnitudes, extra columns, then the adjacent colors if `colors` is set."""
        values = torch.from_numpy(_magnitudes_and_extra(batch, self.extra))
        values = torch.where(torch.isfinite(values), values, self.fill)
        if not self.colors:
            return values
        mag = values[:, : len(batch.bands)]
        return torch.cat([values, mag[:, :-1] - mag[:, 1:]], dim=1)

    def scaled(self, batch: Photometry, scaler: Scaler, reference: int) -> tuple[Tensor, Tensor]:
        """(n, inputs) scaled inputs and (n,) magnitudes of the reference band, in one compiled pass."""
        learned = self.fill, scaler.offset, 1 / scaler.scale
        given = [a_block_at_least(array) for array in (batch.mag, batch.maglim, other_inputs(batch, self.extra))]
        count = len(given[0])
        out = np.empty((len(scaler.offset) + 1, count), np.float32)
        compiled = _compiled_columns(len(batch.bands), len(self.extra), self.colors, reference)
        compiled(*(one.contiguous().numpy() for one in learned), *given, out, count)
        found = torch.from_numpy(out)[:, : len(batch)]
        return found[:-1].T, found[-1]


def _magnitudes_and_extra(batch: Photometry, extra: Sequence[str]) -> NDArray[np.float32]:
    mag = np.where(np.isfinite(batch.mag), batch.mag, batch.maglim)
    return np.concatenate([mag, other_inputs(batch, extra)], axis=1) if extra else mag


@lru_cache(maxsize=8)
def _compiled_columns(bands: int, others: int, colors: bool, reference: int) -> Compiled:
    """The compiled form of `Columns` and `Scaler`, sixteen rows at a time: scaled columns, then the reference magnitude."""
    inputs = bands + others + (bands - 1) * colors
    shapes: dict[str, Shape] = {"fill": (bands + others,), "offset": (inputs,), "per_scale": (inputs,)}
    shapes |= {
        "mag": ("rows", bands),
        "maglim": ("rows", bands),
        "other": ("rows", others),
        "out": ("rows", inputs + 1),
    }
    code = Code({name: (np.float32, shape) for name, shape in shapes.items()}, ("rows",))

    def block(row: Value) -> None:
        def known(number: int, *numbers: Value) -> Value:
            """The first finite value, or else the fill value of the column."""
            found = code.spread(code.fill, number)
            for one in reversed(numbers):
                found = one.finite().where(one, found)
            return found

        values = [
            known(b, *(code.of_rows(array, row, bands, b) for array in (code.mag, code.maglim))) for b in range(bands)
        ]
        values += [known(bands + k, code.of_rows(code.other, row, others, k)) for k in range(others)]
        code.store(values[reference], code.out, code.rows * (len(values) + (bands - 1) * colors) + row)
        if colors:
            values += [a - b for a, b in pairwise(values[:bands])]
        for number, one in enumerate(values):
            scaled = (one - code.spread(code.offset, number)) * code.spread(code.per_scale, number)
            code.store(scaled, code.out, code.rows * number + row)

    code.each_block(code.rows, block)
    return code.compiled()


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
        detected = train.observed & ~train.undetected
        noise = torch.where(detected & (train.error > 0), train.error, torch.nan).nanmedian(0).values
        # Without errors, the 0.1-quantile of the fluxes is assumed to be a 5 sigma detection.
        faint = 0.2 * torch.nanquantile(torch.where(detected, train.flux, torch.nan)[:200_000], 0.1, dim=0)
        softening = torch.where(torch.isfinite(noise), noise, faint)
        self.softening.copy_(torch.where(torch.isfinite(softening) & (softening > 0), softening, 1.0))
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
        learned = self.softening, self.offset, 1 / self.scale
        rows = (batch.mag, batch.magerr, batch.maglim, batch.undetected, batch.unobserved, batch.imputed)
        given = [a_block_at_least(array) for array in (*rows, other_inputs(batch, extra))]
        count = len(given[0])
        out = np.empty((count, _multiple(self.size)), np.float32)
        _compiled(self.bands, self.others)(*(one.contiguous().numpy() for one in learned), *given, out, count)
        return torch.from_numpy(out)[: len(batch), : self.size]

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


def _multiple(size: int) -> int:
    return -(-size // LANES) * LANES


@lru_cache(maxsize=8)
def _compiled(bands: int, others: int) -> Compiled:
    """The compiled form of `Luptitudes.forward` of `Fluxes.of`, sixteen rows at a time."""
    size = 5 * bands - 1 + others
    arrays: dict[str, tuple[Any, Shape]] = {"softening": (np.float32, (bands,))}
    arrays |= dict.fromkeys(("offset", "per_scale"), (np.float32, (size,)))
    arrays |= dict.fromkeys(("mag", "magerr", "maglim"), (np.float32, ("rows", bands)))
    arrays |= dict.fromkeys(MASKS, (np.int32, ("rows",)))
    arrays |= {"other": (np.float32, ("rows", others)), "out": (np.float32, ("rows", _multiple(size)))}
    code = Code(arrays, ("rows",))
    zero = code.constant(0)

    def flux_of(magnitude: Value) -> Value:
        power = (ZERO_POINT - magnitude) * (0.4 * math.log2(10))
        return power.max(-MOST).min(MOST).exp2()

    def block(row: Value) -> None:
        undetected, unobserved, imputed = (code.load(mask, row, INTS) for mask in map(partial(getattr, code), MASKS))
        compressed, luptitudes, noises, missed, seen = [], [], [], [], []
        for band in range(bands):
            mag, magerr, maglim = (
                code.of_rows(array, row, bands, band) for array in (code.mag, code.magerr, code.maglim)
            )
            there = ((undetected | unobserved | imputed) & 1 << band) < 1
            measured, lost = there & mag.finite(), (undetected & 1 << band) > 0
            softening = code.spread(code.softening, band)
            raw = flux_of(mag)
            x = measured.where(raw / (softening * 2), zero)
            compressed.append((x + (x * x + 1).sqrt()).log())
            luptitudes.append((compressed[-1] + softening.log()) * -MAGNITUDES)
            error = lost.where(maglim.finite().where(flux_of(maglim), zero), raw * magerr * (1 / MAGNITUDES))
            noises.append(((error > 0).where(error, softening) / softening + 1e-6).log())
            missed.append(lost)
            seen.append(measured | lost)
        colors = [(a - b, s & t) for (a, s), (b, t) in pairwise(zip(luptitudes, seen, strict=True))]
        further = [code.of_rows(code.other, row, others, k) for k in range(others)]
        truths = [truth.where(1, zero) for truth in (*missed, *seen)]
        values = [*zip(compressed, seen, strict=True), *colors, *zip(noises, seen, strict=True)]
        values += [(value, value.finite()) for value in (*truths, *further)]
        inputs = []
        for number, (value, valid) in enumerate(values):
            scaled = (value - code.spread(code.offset, number)) * code.spread(code.per_scale, number)
            inputs.append(valid.where(scaled, zero).max(-8).min(8))
        inputs += [zero] * (-len(inputs) % LANES)
        for first in range(0, len(inputs), LANES):
            for lane, part in enumerate(code.transposed(inputs[first : first + LANES])):
                code.store(part, code.out, (row + lane) * len(inputs) + first)

    code.each_block(code.rows, block)
    return code.compiled()
