"""Removal of parts of spectra: masking of contiguous parts, and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmill.inputs.degradation import AS_OBSERVED, Degradation
from zmill.inputs.spectrum.batch import Spectra


@dataclass(frozen=True)
class SpectrumPattern:
    """A part of a spectrum that is taken away.

    masked : first and last end of the masked part, as fractions of the pixels.
    noise : factor by which the errors grow.
    """

    name: str
    masked: tuple[float, float] | None = None
    noise: float = 1.0


PATTERNS = [
    SpectrumPattern(AS_OBSERVED),
    SpectrumPattern("without the blue half", (0.0, 0.5)),
    SpectrumPattern("without the red half", (0.5, 1.0)),
    SpectrumPattern("without a fifth in the middle", (0.4, 0.6)),
    SpectrumPattern("twice the noise", noise=2.0),
]


class SpectrumDegradation(Degradation):
    """Removal of parts of spectra from rows."""

    def tests(self, rows: Spectra) -> list[SpectrumPattern]:  # type: ignore[override]
        return PATTERNS

    def concerns(self, rows: Spectra, pattern: SpectrumPattern) -> NDArray[np.bool_]:
        """(n,) whether the pattern changes the row and leaves a good pixel; True for all rows of the pattern as observed."""
        if pattern.name == AS_OBSERVED:
            return np.ones(len(rows), bool)
        good, lost = rows.ivar > 0, _masked(rows, pattern)
        changed = good[:, lost].any(axis=1) if pattern.masked else good.any(axis=1)
        return np.asarray(changed & good[:, ~lost].any(axis=1))

    def apply(self, rows: Spectra, pattern: SpectrumPattern) -> Spectra:
        """The rows with the part masked, or with noise added; the same rows have the same noise each time."""
        flux, ivar = rows.flux, rows.ivar
        if pattern.noise != 1:
            good = ivar > 0
            more = np.float32(pattern.noise**2 - 1)
            added = np.sqrt(np.divide(more, ivar, out=np.zeros_like(ivar), where=good))
            flux = np.asarray(
                flux + added * np.random.default_rng(0).standard_normal(flux.shape, np.float32), np.float32
            )
            ivar = ivar / np.float32(pattern.noise**2)
        return rows.with_pixels(flux, np.where(_masked(rows, pattern), np.float32(0), ivar))


def _masked(rows: Spectra, pattern: SpectrumPattern) -> NDArray[np.bool_]:
    """(pixels) whether the pattern masks the pixel."""
    first, last = pattern.masked or (0.0, 0.0)
    place = (np.arange(len(rows.grid)) + 0.5) / len(rows.grid)
    return (place > first) & (place < last)
