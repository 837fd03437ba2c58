"""How many matches are with an unrelated object: what spectra find that were moved away."""

from __future__ import annotations

import numpy as np

from zmill.catalog.sky import healpix
from zmill.crossmatch.match import Discs, Floats

SHIFTED_SPECTRA = 20_000
"""Spectra that are moved."""


def shifted_rows(discs: Discs) -> slice:
    """Which discs are moved: an even selection."""
    return slice(None, None, max(1, len(discs) // SHIFTED_SPECTRA))


def shifted(discs: Discs) -> Discs:
    """An even selection of the discs, moved towards the equator by 30 arcsec and two radii: what they find is chance."""
    rows = shifted_rows(discs)
    ra, dec, radius = discs.ra[rows], discs.dec[rows], discs.radius[rows]
    dec = dec - np.where(dec > 0, 1.0, -1.0) * (30 + 2 * radius) / 3600
    return Discs(healpix(ra, dec), ra, dec, radius)


def expected_false(chance: float, spectra: int, separation: Floats, radius: Floats) -> float:
    """How many matches are expected to be with an unrelated object.

    A spectrum without its object in the survey finds another one with probability `chance`, by which N - M unmatched of N
    spectra imply (N - M) p / (1 - p) false matches; and an unrelated object is nearer than the true one, at d of r, with
    probability p (d/r)^2.

    Parameters
    ----------
    chance : p, the fraction of shifted spectra that find an object.
    spectra : N.
    separation, radius : (M,) of the matches.
    """
    if chance >= 1:
        return float(len(separation))
    lonely = (spectra - len(separation)) * chance / (1 - chance)
    return float(min(lonely + chance * np.sum((separation / radius) ** 2), len(separation)))
