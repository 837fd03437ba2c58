"""One band's raw values into magnitude, error, limit and state: the place where every sentinel ends.

A band of a row is measured, undetected (looked at, below the limit) or unobserved (never looked at, or measured without
meaning). Only measured bands have a magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmill.config import Sentinels
from zmill.survey.photometry import MAGNITUDES, ZERO_POINT

DETECTION_SIGMA = 1.0
"""A flux below this many times its error is no detection, and the flux of this many errors is the limit."""
FAILED_SIGMA = 5.0
"""A flux this many errors below zero is no noise around zero but a failed measurement: it says nothing."""
FAINTEST = 50.0
"""No object's magnitude is beyond this, of either sign: 99 and -9999 are sentinels."""

Floats = NDArray[np.floating]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class BandState:
    """A band of n rows; all arrays (n,).

    mag, magerr, maglim : AB magnitudes; NaN where there is none. `magerr` is NaN too where a measured band's error is
        unknown, `maglim` wherever the band is not undetected or its limit is unknown.
    undetected, unobserved : the state; measured where neither.
    infinite : the magnitude is infinite: a bad row.
    out_of_range : the magnitude is beyond +-`FAINTEST`: a sentinel that nobody declared, so a bad row.
    bad_error : the band is measured with an error that is zero or negative: a bad row.
    """

    mag: Floats
    magerr: Floats
    maglim: Floats
    undetected: Booleans
    unobserved: Booleans
    infinite: Booleans
    out_of_range: Booleans
    bad_error: Booleans

    @classmethod
    def never(cls, n: int) -> BandState:
        """A band that the survey has never observed."""
        nothing, no = np.full(n, np.nan, np.float32), np.zeros(n, np.bool_)
        return cls(nothing, nothing, nothing, no, np.ones(n, np.bool_), no, no, no)


def band_state(
    value: Floats,
    error: Floats | None,
    photometry: str,
    sentinels: Sentinels,
    vega_to_ab: float = 0.0,
    softening: float | None = None,
) -> BandState:
    """Values and errors as the survey writes them into AB magnitudes and states.

    Parameters
    ----------
    value : (n,) magnitudes, nJy or luptitudes, as `photometry` says; null is NaN.
    error : (n,) errors in the same unit, or None where the survey has none.
    vega_to_ab : added to Vega magnitudes.
    softening : b of luptitudes, in maggies.

    Notes
    -----
    An infinity is a bad row unless the sentinels list it. A sentinel in the error column means that the error is unknown;
    an infinite error that the band is unobserved, because nothing was learned. Fluxes below `DETECTION_SIGMA` errors
    are undetected, with the magnitude of `DETECTION_SIGMA` errors as the limit; fluxes more than `FAILED_SIGMA` errors
    below zero are unobserved.
    """
    undetected, unobserved = _is_any(value, sentinels.undetected), _is_any(value, sentinels.unobserved)
    empty = np.isnan(value)
    if sentinels.nonfinite == "undetected":
        undetected |= empty
    else:
        unobserved |= empty
    missing = undetected | unobserved
    infinite = np.isinf(value) & ~missing
    out_of_range = (np.abs(value) > FAINTEST) & ~missing & ~infinite & (photometry != "nanojansky")
    if error is None:
        known = bad_error = np.zeros(len(value), np.bool_)
        error = np.full(len(value), np.nan, value.dtype)
    else:
        meant = ~(_is_any(error, sentinels.undetected) | _is_any(error, sentinels.unobserved)) & ~np.isnan(error)
        unobserved = unobserved | (np.isinf(error) & meant & ~missing)
        missing = undetected | unobserved
        known = meant & (error > 0) & ~np.isinf(error)
        bad_error = meant & (error <= 0) & ~missing
    value = np.where(missing | infinite | out_of_range, np.nan, value)
    limit = np.where(undetected & known, error, np.nan) if sentinels.limit_in_error else np.full_like(value, np.nan)
    error = np.where(known & np.isfinite(value), error, np.nan)

    if photometry in ("ab_magnitude", "vega_magnitude"):
        offset = value.dtype.type(vega_to_ab)
        mag: Floats = value + offset
        magerr: Floats = error
        maglim: Floats = limit + offset
    else:
        flux: Floats
        flux_error: Floats
        if photometry == "luptitude":
            assert softening is not None
            flux, flux_error = luptitude_to_flux(value, error, softening)
            if sentinels.limit_in_error:
                limit = flux_to_magnitude(luptitude_to_flux(limit, limit, softening)[0], 0.0)
            zero_point = 0.0
        else:
            flux, flux_error = np.asarray(value, np.float64), np.asarray(error, np.float64)
            zero_point = ZERO_POINT
        unobserved = unobserved | (~missing & (flux < -FAILED_SIGMA * flux_error))
        below = ~unobserved & ~missing & ((flux <= 0) | (flux < DETECTION_SIGMA * flux_error))
        undetected = undetected | below
        mag = flux_to_magnitude(np.where(below | unobserved, np.nan, flux), zero_point)
        with np.errstate(divide="ignore", invalid="ignore"):
            magerr = np.where(below | unobserved, np.nan, MAGNITUDES * flux_error / flux)
        maglim = np.where(below, flux_to_magnitude(DETECTION_SIGMA * flux_error, zero_point), limit)
    return BandState(mag, magerr, maglim, undetected, unobserved, infinite, out_of_range, bad_error)


def flux_to_magnitude(flux: Floats, zero_point: float) -> Floats:
    """AB magnitudes of fluxes: zero_point - 2.5 log10(flux); NaN for fluxes that are not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flux > 0, zero_point - 2.5 * np.log10(flux), np.nan)


def luptitude_to_flux(
    luptitude: Floats, error: Floats, softening: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fluxes and errors in maggies of asinh magnitudes: the inverse of Lupton, Gunn & Szalay 1999, eqs. 3 and 7.

    Parameters
    ----------
    softening : b, in maggies.
    """
    sinh = np.sinh(-luptitude.astype(np.float64) / MAGNITUDES - np.log(softening))
    flux = 2 * softening * sinh
    return flux, error.astype(np.float64) / MAGNITUDES * 2 * softening * np.sqrt(1 + sinh**2)


def _is_any(values: Floats, sentinels: list[float]) -> Booleans:
    """Whether a value is one of the sentinels, each rounded as the file's own type rounds it."""
    found = np.zeros(len(values), np.bool_)
    for sentinel in sentinels:
        found |= values == values.dtype.type(sentinel)
    return found
