"""Luptitudes, colors, noise and masks of photometry as standardized inputs of a network, in one compiled pass."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmill.kernels.simd import INTS, LANES, Code, Compiled, Shape, Value, a_block_at_least

Floats = NDArray[np.float32]
Masks = NDArray[np.int32]

MAGNITUDES = 2.5 / math.log(10)
"""The change in magnitude for a factor e in flux."""
MOST = 60.0
"""Exponents of 2 are clipped to ± this value when a magnitude is converted to a flux."""


def luptitudes(
    zero_point: float,
    mag: Floats,
    magerr: Floats,
    maglim: Floats,
    undetected: Masks,
    unobserved: Masks,
    imputed: Masks,
    other: Floats,
    softening: Floats,
    offset: Floats,
    per_scale: Floats,
) -> Floats:
    """Standardized inputs of rows.

    A band is measured if `mag` is finite and its bit is in none of the masks, and observed if it is measured or undetected.
    Its flux f is 10^(0.4 (zero_point − mag)), or 0 if it is not measured. Its error e is f · magerr / 1.0857, or that of
    `maglim` if it is undetected; where e is not above 0, it is the softening s. The inputs are, in this order:

    - asinh(f / 2s) of each observed band (Lupton, Gunn & Szalay 1999, eq. 3);
    - −1.0857 (asinh(f / 2s) + ln s) of a band less that of the next one, for adjacent observed bands;
    - ln(e / s + 10⁻⁶) of each observed band;
    - 1 for each undetected band, else 0; 1 for each observed band, else 0;
    - the values of `other` that are finite.

    From each, `offset` is subtracted, the result is multiplied by `per_scale` and clipped to ±8. Missing inputs are 0.

    Parameters
    ----------
    zero_point : AB magnitude of flux 1.
    mag, magerr, maglim : (n, bands) float32.
    undetected, unobserved, imputed : (n,) int32 bit masks of bands.
    other : (n, k) float32.
    softening : (bands,) float32, above 0.
    offset, per_scale : (5 bands − 1 + k,) float32.

    Returns
    -------
    (n, 5 bands − 1 + k) float32; the rows are strided.
    """
    rows = [a_block_at_least(one) for one in (mag, magerr, maglim, undetected, unobserved, imputed, other)]
    count, size = len(rows[0]), len(offset)
    out = np.empty((count, _padded(size)), np.float32)
    _compiled(mag.shape[1], other.shape[1], zero_point)(softening, offset, per_scale, *rows, out, count)
    return out[: len(mag), :size]


def _padded(size: int) -> int:
    """Numbers of a row of the output: complete registers are stored."""
    return -(-size // LANES) * LANES


@lru_cache(maxsize=8)
def _compiled(bands: int, others: int, zero_point: float) -> Compiled:
    size = 5 * bands - 1 + others
    arrays: dict[str, tuple[Any, Shape]] = {"softening": (np.float32, (bands,))}
    arrays |= dict.fromkeys(("offset", "per_scale"), (np.float32, (size,)))
    arrays |= dict.fromkeys(("mag", "magerr", "maglim"), (np.float32, ("rows", bands)))
    arrays |= dict.fromkeys(("undetected", "unobserved", "imputed"), (np.int32, ("rows",)))
    arrays |= {"other": (np.float32, ("rows", others)), "out": (np.float32, ("rows", _padded(size)))}
    code = Code(arrays, ("rows",))
    zero = code.constant(0)

    def flux_of(magnitude: Value) -> Value:
        power = (zero_point - magnitude) * (0.4 * math.log2(10))
        return power.max(-MOST).min(MOST).exp2()

    def block(row: Value) -> None:
        undetected, unobserved, imputed = (
            code.load(mask, row, INTS) for mask in (code.undetected, code.unobserved, code.imputed)
        )
        compressed, luptitude, noise, lost, observed = [], [], [], [], []
        for band in range(bands):
            mag, magerr, maglim = (
                code.of_rows(array, row, bands, band) for array in (code.mag, code.magerr, code.maglim)
            )
            there = ((undetected | unobserved | imputed) & 1 << band) < 1
            measured, missed = there & mag.finite(), (undetected & 1 << band) > 0
            softening = code.spread(code.softening, band)
            flux = flux_of(mag)
            x = measured.where(flux / (softening * 2), zero)
            compressed.append((x + (x * x + 1).sqrt()).log())
            luptitude.append((compressed[-1] + softening.log()) * -MAGNITUDES)
            error = missed.where(maglim.finite().where(flux_of(maglim), zero), flux * magerr * (1 / MAGNITUDES))
            noise.append(((error > 0).where(error, softening) / softening + 1e-6).log())
            lost.append(missed)
            observed.append(measured | missed)
        colors = [(a - b, s & t) for (a, s), (b, t) in pairwise(zip(luptitude, observed, strict=True))]
        further = [code.of_rows(code.other, row, others, k) for k in range(others)]
        flags = [flag.where(1, zero) for flag in (*lost, *observed)]
        values = [*zip(compressed, observed, strict=True), *colors, *zip(noise, observed, strict=True)]
        values += [(value, value.finite()) for value in (*flags, *further)]
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
