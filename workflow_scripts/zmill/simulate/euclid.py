"""Spectra like those of Euclid's red grism: 1,780 samples of 5 Angstrom from 11,000 Angstrom, as in Stivaktakis et al. 2020."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zmill.simulate.instrument import UNIT, Instrument, counts
from zmill.simulate.spectrograph import Arm, Spectrograph

Array = NDArray[np.float64]

FIRST, SAMPLE, SAMPLES = 11_000.0, 5.0, 1780
"""Angstrom: center of the first sample and width of all."""
FWHM = 25.0
"""Angstrom: resolving power 500 to 740 over 12,060 to 18,920 Angstrom (Euclid Collaboration: Gillard et al. 2025, arXiv 2506.08378)."""
STEP = 1.5e-4
Z = (1.0, 1.8)
BRIGHT, FAINT, SLOPE = 18.0, 20.0, 0.3
"""H magnitudes, and the slope of their numbers."""
LINE_FLUX, LINE_SIGMA, LINE_WIDTH = 2e-16, 3.5, 26.8
"""erg / s / cm2: a line of this flux has this S/N in a window of this width, Angstrom (Euclid Collaboration: Jahnke et al. 2025)."""
NOISE = LINE_FLUX / LINE_SIGMA / np.sqrt(LINE_WIDTH * SAMPLE) / UNIT
"""Standard deviation of white noise in a sample: an S/N of 1 for a continuum of H = 20.0."""


def draw(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Uniform redshifts in [1, 1.8), and H magnitudes."""
    return rng.uniform(*Z, n), counts(rng, BRIGHT, FAINT, SLOPE, n)


def sigma(flux: Array) -> Array:
    """White noise."""
    return np.full(flux.shape, NOISE)


def instrument() -> Instrument:
    """Euclid's red grism."""
    edges: Array = FIRST + SAMPLE * (np.arange(SAMPLES + 1, dtype=np.float64) - 0.5)
    return Instrument(
        spectrograph=Spectrograph.dispersed(Arm(edges, lambda wavelength: wavelength / FWHM), step=STEP),
        z=Z,
        band=(15_000.0, 19_000.0),
        draw=draw,
        sigma=sigma,
    )
