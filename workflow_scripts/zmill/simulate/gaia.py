"""Spectra like those of Gaia's BP and RP: 186 samples from 366 to 996 nm, as Kiraleos (2023) used them.

BP has 80 samples and RP 106, whose widths follow the dispersion of the prisms. The samples are concatenated at 640 nm.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from zmill.simulate.galaxies import distance_modulus
from zmill.simulate.instrument import UNIT, Instrument
from zmill.simulate.spectrograph import Arm, Spectrograph

Array = NDArray[np.float64]

SAMPLES = (80, 106)
"""Samples of BP and RP."""
ENDS = (3660.0, 6400.0, 9960.0)
"""Angstrom: the first end of BP, its end and that of RP, and the last end of RP."""
DISPERSION = (((3300.0, 30.0), (6800.0, 270.0)), ((6400.0, 70.0), (10_500.0, 150.0)))
"""Angstrom and Angstrom per pixel at both ends of BP and RP (Gaia Collaboration, Prusti et al. 2016, A&A 595, A1, sect. 3.3.6)."""
RESOLVING_POWER = (((3300.0, 100.0), (6800.0, 30.0)), ((6400.0, 100.0), (10_500.0, 70.0)))
"""Angstrom and resolving power at both ends (De Angeli et al. 2023, A&A 674, A2; Montegriffo et al. 2023, A&A 674, A3)."""
STEP = 5e-4

Z_EDGES = np.arange(0, 0.601, 0.05)
PERCENT = np.array([6.62, 27.77, 28.99, 16.61, 8.80, 6.00, 3.55, 1.15, 0.30, 0.11, 0.06, 0.04])
"""Percentage of Kiraleos's galaxies in each bin of 0.05 in redshift."""
ABSOLUTE, SPREAD = -20.4, 0.9
"""Mean and standard deviation of absolute magnitudes of the compact parts of galaxies that Gaia sees, before those beyond `LIMITS` are
left out: most have G from 17 to 20."""
LIMITS = (14.0, 20.9)
"""Brightest and faintest G."""

TRANSITS, EXPOSURE = 40, 4.42
"""Number of transits that a mean spectrum is made of, and seconds of each."""
AREA, THROUGHPUT = 7278.0, 0.5
"""cm2 of one telescope's mirror, and the fraction of photons that are detected."""
BACKGROUND = 50.0
"""Electrons squared per sample and transit of read noise, stray light and zodiacal light: an S/N of about 10 at G = 19 and 3 at 20.5."""
PHOTON = 1.98644586e-8
"""erg Angstrom: energy of a photon times its wavelength."""


def along(wavelength: Array | float, ends: tuple[tuple[float, float], tuple[float, float]]) -> Array:
    """Values between two ends whose logarithm is linear in wavelength, also beyond the ends."""
    (blue, first), (red, last) = ends
    return np.asarray(first * (last / first) ** ((np.asarray(wavelength) - blue) / (red - blue)))


def edges(number: int) -> Array:
    """Edges of the samples of BP (0) or RP (1), Angstrom: each is the same fraction of a pixel."""
    fine = np.linspace(ENDS[number], ENDS[number + 1], 10_001)
    pixel = np.concatenate([[0.0], np.cumsum(np.diff(fine) / along((fine[1:] + fine[:-1]) / 2, DISPERSION[number]))])
    return np.interp(np.linspace(0, pixel[-1], SAMPLES[number] + 1), pixel, fine)


def draw(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Redshifts with the published percentages, and G magnitudes of galaxies that Gaia can observe at these distances.

    Within the first bin, numbers rise with the redshift from 0; in the others they are uniform.
    """
    bin_of = rng.choice(len(PERCENT), n, p=PERCENT / PERCENT.sum())
    inside = rng.uniform(0, 1, n)
    z = Z_EDGES[bin_of] + 0.05 * np.where(bin_of == 0, np.sqrt(inside), inside)
    mean = ABSOLUTE + distance_modulus(np.maximum(z, 1e-4))
    low, high = (ndtr((limit - mean) / SPREAD) for limit in LIMITS)
    return z, np.clip(mean + SPREAD * ndtri(low + (high - low) * rng.uniform(0, 1, n)), *LIMITS)


def sigma(flux: Array, wavelength: Array, width: Array) -> Array:
    """Standard deviation of the photons of source and background over all transits."""
    electrons = UNIT * width * wavelength / PHOTON * AREA * THROUGHPUT * TRANSITS * EXPOSURE
    return np.asarray(np.sqrt(np.maximum(flux, 0) * electrons + TRANSITS * BACKGROUND) / electrons)


def instrument() -> Instrument:
    """Gaia's BP and RP."""
    arms = [Arm(edges(number), partial(along, ends=RESOLVING_POWER[number])) for number in (0, 1)]
    spectrograph = Spectrograph.dispersed(*arms, step=STEP)
    width = np.concatenate([np.diff(arm.edges) for arm in arms])
    return Instrument(
        spectrograph=spectrograph,
        z=(0.0, 0.6),
        band=(4000.0, 9000.0),
        draw=draw,
        sigma=partial(sigma, wavelength=spectrograph.wavelength, width=width),
    )
