"""Spectra like those of SPHEREx: 102 channels from 0.75 to 5 micron, 17 in each of six bands, noise of the all-sky survey."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zmill.simulate.instrument import Instrument, counts, flux_of, from_histogram
from zmill.simulate.spectrograph import Spectrograph

Array = NDArray[np.float64]

BANDS = (
    (7_500.0, 11_100.0, 41.0, 19.6),
    (11_100.0, 16_400.0, 41.0, 19.6),
    (16_400.0, 24_200.0, 41.0, 19.6),
    (24_200.0, 38_200.0, 35.0, 19.3),
    (38_200.0, 44_200.0, 110.0, 18.0),
    (44_200.0, 50_000.0, 130.0, 17.7),
)
"""First and last Angstrom, resolving power (Crill et al. 2020, SPIE 11443; arXiv 2404.11017), and AB magnitude at 5 sigma in a channel
after the survey of two years, approximately (Dore et al. 2018, arXiv 1805.05489)."""
CHANNELS = 17
"""Channels in each band, of equal width in ln(wavelength)."""
STEP = 1e-3
Z = (0.0, 2.0)
Z_SCALE = 0.4
"""n(z) is proportional to z^2 exp(-(z / Z_SCALE)^1.5) (Smail et al. 1994, MNRAS 270, 245), with a median of 0.56."""
BRIGHT, FAINT, SLOPE = 16.0, 20.5, 0.3
"""Magnitudes from 0.75 to 1.1 micron, and the slope of their numbers."""


def draw(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Redshifts, and magnitudes that do not depend on them."""
    z = np.linspace(*Z, 2001)
    return from_histogram(rng, z, z**2 * np.exp(-((z / Z_SCALE) ** 1.5)), n), counts(rng, BRIGHT, FAINT, SLOPE, n)


def instrument() -> Instrument:
    """SPHEREx's linear variable filters."""
    spaced = [np.geomspace(low, high, CHANNELS + 1) for low, high, _, _ in BANDS]
    centers = np.concatenate([np.sqrt(edges[1:] * edges[:-1]) for edges in spaced])
    resolving_power, depth = (np.repeat([band[column] for band in BANDS], CHANNELS) for column in (2, 3))
    noise = flux_of(depth, centers) / 5
    return Instrument(
        spectrograph=Spectrograph.filtered(centers, resolving_power, step=STEP),
        z=Z,
        band=(7_500.0, 11_100.0),
        draw=draw,
        sigma=lambda flux: np.broadcast_to(noise, flux.shape).copy(),
    )
