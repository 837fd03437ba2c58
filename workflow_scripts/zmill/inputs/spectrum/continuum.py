"""Level, continuum and signal-to-noise ratio of spectra, computed from good pixels; nothing of it is stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

WINDOW = 0.05
"""Width of the running mean of the continuum, as a fraction of the spectrum."""
CLIP = 3.0
"""Pixels further from the first continuum than so many standard deviations, such as lines, do not enter the second."""


@dataclass(frozen=True)
class Normalized:
    """Normalized spectra: values, ivar (n, pixels) float32, 0 in masked pixels; log_level (n,) decimal logarithm of the level."""

    values: Array
    ivar: Array
    log_level: Array


def normalize(flux: Array, ivar: Array, subtract_continuum: bool = True, window: float = WINDOW) -> Normalized:
    """Spectra divided by their level, after their continuum is subtracted where wanted.

    Division by the level and not by the continuum leaves noise finite where the continuum is near zero.

    flux, ivar : (n, pixels). window : as in `continuum`.
    """
    scale = level(flux, ivar)[:, None]
    values = flux - continuum(flux, ivar, window) if subtract_continuum else flux
    return Normalized(np.where(ivar > 0, values / scale, np.float32(0)), ivar * scale**2, np.log10(scale[:, 0]))


def level(flux: Array, ivar: Array) -> Array:
    """(n,) median of the absolute flux of the good pixels; 1 where it is 0 or unknown."""
    found = row_median(np.abs(flux), ivar > 0)
    return np.where(found > 0, found, np.float32(1))


def continuum(flux: Array, ivar: Array, window: float = WINDOW) -> Array:
    """(n, pixels) running mean of the flux, weighted by `ivar`, without the lines.

    Where no pixel of the window is good, it is the mean of the complete spectrum.

    window : width as a fraction of the number of pixels.
    """
    half = max(1, round(flux.shape[1] * window / 2))
    first = _running_mean(flux, ivar, half)
    lines = np.abs(flux - first) * np.sqrt(ivar) > CLIP
    return _running_mean(flux, np.where(lines, np.float32(0), ivar), half)


def median_sn(flux: Array, ivar: Array) -> Array:
    """(n,) median signal-to-noise ratio of the good pixels; NaN without any."""
    return row_median(flux * np.sqrt(ivar), ivar > 0)


def row_median(values: Array, chosen: NDArray[np.bool_]) -> Array:
    """(n,) median of the chosen values of each row of (n, k); NaN where none is chosen."""
    ordered = np.where(chosen, values, np.float32(np.inf))
    ordered.sort(axis=1)
    count, rows = chosen.sum(axis=1), np.arange(len(values))
    lower, upper = ordered[rows, np.maximum(count - 1, 0) // 2], ordered[rows, count // 2 * (count > 0)]
    return np.where(count > 0, (lower + upper) / 2, np.float32(np.nan)).astype(np.float32)


def bin_means(values: Array, weight: NDArray[np.floating], bins: int) -> NDArray[np.float64]:
    """(n, bins) weighted means of `values` (n, pixels) in runs of pixels of equal length; NaN where all weights are 0."""
    starts = np.linspace(0, values.shape[1], bins + 1).astype(int)[:-1]
    weight = weight.astype(np.float64, copy=False)
    total = np.add.reduceat(weight, starts, axis=1)
    sums = np.add.reduceat(values * weight, starts, axis=1)
    return np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0)


def _running_mean(flux: Array, weight: Array, half: int) -> Array:
    pixels = flux.shape[1]
    ends = np.minimum(np.arange(pixels) + half + 1, pixels)
    starts = np.maximum(np.arange(pixels) - half, 0)
    # Weights of the order of one: sums of inverse variances in any unit neither overflow nor vanish.
    scaled = weight / np.maximum(weight.max(axis=1, keepdims=True, initial=0), np.finfo(np.float32).tiny)
    sums = [np.cumsum(np.pad(part, ((0, 0), (1, 0))), axis=1, dtype=np.float64) for part in (scaled, scaled * flux)]
    total, summed = (part[:, ends] - part[:, starts] for part in sums)
    enough = total > 1e-9 * sums[0][:, -1:]
    mean = np.divide(sums[1][:, -1], sums[0][:, -1], out=np.zeros(len(flux)), where=sums[0][:, -1] > 0)
    return np.where(enough, summed / np.where(enough, total, 1.0), mean[:, None]).astype(np.float32)
