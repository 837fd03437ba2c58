"""Rate of matches with unrelated objects, measured on spectra at shifted positions."""

from __future__ import annotations

import numpy as np

from zmill.catalog.sky import healpix
from zmill.crossmatch.match import Discs, Floats

SHIFTED_SPECTRA = 20_000
"""Largest number of spectra that are shifted."""


def shifted_rows(discs: Discs) -> slice:
    """Which discs are shifted: an even selection."""
    return slice(None, None, max(1, len(discs) // SHIFTED_SPECTRA))


def shifted(discs: Discs) -> Discs:
    """An even selection of the discs, shifted towards the equator by 30 arcsec and two radii; their matches are chance matches."""
    rows = shifted_rows(discs)
    ra, dec, radius = discs.ra[rows], discs.dec[rows], discs.radius[rows]
    dec = dec - np.where(dec > 0, 1.0, -1.0) * (30 + 2 * radius) / 3600
    return Discs(healpix(ra, dec), ra, dec, radius)


def expected_false(chance: float, spectra: int, separation: Floats, radius: Floats) -> float:
    """Expected number of matches with unrelated objects.

    A spectrum whose object is not in the survey matches another one with probability p, so that N - M unmatched of N
    spectra imply (N - M) p / (1 - p) false matches. An unrelated object is nearer than the true one, at distance d within
    radius r, with probability p (d/r)^2.

    Parameters
    ----------
    chance : p, the fraction of shifted spectra that match an object.
    spectra : N.
    separation, radius : (M,) of the matches.
    """
    if chance >= 1:
        return float(len(separation))
    lonely = (spectra - len(separation)) * chance / (1 - chance)
    return float(min(lonely + chance * np.sum((separation / radius) ** 2), len(separation)))
