"""Nebular emission lines: a list with fixed ratios, and a law for their strength.

The flux of [O II] 3727 follows from the ultraviolet flux, because both measure the rate of star formation: L([O II]) = 10^13 Hz
L_nu(UV), from SFR = 1.4e-28 L_nu(1500-2800 A) and SFR = 1.4e-41 L([O II]) in erg/s (Kennicutt 1998, ARA&A 36, 189, eq. 1 and 3). A
spectrum that is flat in f_nu has an equivalent width of 46 Angstrom in [O II] and of 250 Angstrom in H alpha.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zmill import sed
from zmill.restframe.seds import Sed

Array = NDArray[np.float64]

RECOMBINATION, HIGH_IONIZATION, LOW_IONIZATION = range(3)
H_BETA, H_ALPHA = 0.61, 1.77
"""Fluxes relative to [O II] 3727: Ilbert et al. 2009, ApJ 690, 1236, sect. 3.2."""
LINES: tuple[tuple[str, float, float, int], ...] = (
    ("[O II]", 3727.09, 0.42, LOW_IONIZATION),
    ("[O II]", 3729.88, 0.58, LOW_IONIZATION),
    ("[Ne III]", 3869.86, 0.07, HIGH_IONIZATION),
    ("H delta", 4102.89, 0.259 * H_BETA, RECOMBINATION),
    ("H gamma", 4341.68, 0.469 * H_BETA, RECOMBINATION),
    ("H beta", 4862.68, H_BETA, RECOMBINATION),
    ("[O III]", 4960.30, 0.36 / 2.98, HIGH_IONIZATION),
    ("[O III]", 5008.24, 0.36, HIGH_IONIZATION),
    ("He I", 5877.25, 0.11 * H_BETA, RECOMBINATION),
    ("[N II]", 6549.85, 0.30 / 2.96 * H_ALPHA, LOW_IONIZATION),
    ("H alpha", 6564.61, H_ALPHA, RECOMBINATION),
    ("[N II]", 6585.28, 0.30 * H_ALPHA, LOW_IONIZATION),
    ("[S II]", 6718.29, 0.15 * H_ALPHA, LOW_IONIZATION),
    ("[S II]", 6732.67, 0.11 * H_ALPHA, LOW_IONIZATION),
    ("[S III]", 9071.1, 0.05 * H_ALPHA, HIGH_IONIZATION),
    ("[S III]", 9533.2, 0.125 * H_ALPHA, HIGH_IONIZATION),
    ("Pa delta", 10052.1, 0.055 * H_BETA, RECOMBINATION),
    ("He I", 10833.3, 0.20 * H_BETA, RECOMBINATION),
    ("Pa gamma", 10941.1, 0.090 * H_BETA, RECOMBINATION),
    ("Pa beta", 12821.6, 0.162 * H_BETA, RECOMBINATION),
    ("Pa alpha", 18756.1, 0.336 * H_BETA, RECOMBINATION),
    ("Br gamma", 21661.2, 0.0275 * H_BETA, RECOMBINATION),
    ("Br beta", 26258.7, 0.045 * H_BETA, RECOMBINATION),
    ("Br alpha", 40522.6, 0.078 * H_BETA, RECOMBINATION),
)
"""Name, vacuum wavelength in Angstrom, flux relative to [O II], family. [O III] as in Ilbert et al. 2009; hydrogen lines in case B at
10^4 K (Osterbrock & Ferland 2006, table 4.4); the others are typical of H II regions."""
UV_TO_OII = 1e13
"""Hz: flux of [O II] in units of the mean f_nu of the ultraviolet."""
ULTRAVIOLET = (2200.0, 2400.0)
"""Angstrom: where the ultraviolet flux is measured."""
SCATTER = (0.2, 0.3, 0.15)
"""dex: standard deviation of the strength of all lines, and in addition of high- and low-ionization lines, between SEDs."""
WIDTHS = (60.0, 200.0)
"""km/s: range of velocity dispersions, log-uniform."""
PRESENT = 5.0
"""Angstrom: an SED whose H alpha has a larger equivalent width in emission has lines of its own."""
H_ALPHA_WINDOW = (6500.0, 6640.0, 6300.0, 6800.0)
"""Angstrom: a window around H alpha and [N II], and the ends of the continuum on its sides."""


def equivalent_width(spectrum: Sed, window: tuple[float, float, float, float]) -> float:
    """Rest-frame equivalent width of emission in Angstrom, against the mean of the continuum on both sides; NaN where not covered."""
    low, high, left, right = window
    continuum = (spectrum.mean(left, low) + spectrum.mean(high, right)) / 2
    return (spectrum.mean(low, high) / continuum - 1) * (high - low) if continuum > 0 else np.nan


def has_lines(spectrum: Sed) -> bool:
    """Whether an SED has emission lines of its own."""
    return equivalent_width(spectrum, H_ALPHA_WINDOW) > PRESENT


def fluxes(rng: np.random.Generator, continuum: Sed) -> Array:
    """(l,) fluxes of `LINES` for an SED, in its unit times Angstrom; all 0 where the SED does not reach into the ultraviolet."""
    scatter = rng.normal(0, SCATTER, 3)
    low, high = ULTRAVIOLET
    f_lambda = continuum.mean(low, high)
    if not np.isfinite(f_lambda):
        return np.zeros(len(LINES))
    f_nu = f_lambda * ((low + high) / 2) ** 2 / sed.LIGHT_SPEED
    family = np.array([line[3] for line in LINES])
    ratio = np.array([line[2] for line in LINES])
    in_dex = scatter[0] + np.where(family == RECOMBINATION, 0.0, scatter[np.maximum(family, 1)])
    return np.asarray(UV_TO_OII * f_nu * ratio * 10**in_dex)


def velocity_dispersion(rng: np.random.Generator) -> float:
    """A velocity dispersion in km/s."""
    return float(np.exp(rng.uniform(*np.log(WIDTHS))))
