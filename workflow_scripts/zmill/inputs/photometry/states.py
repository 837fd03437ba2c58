"""Conversion of one band's raw values and sentinels to magnitude, error, limit and state.

A band of a row is measured, undetected (observed, below the limit) or unobserved (not observed, or the measurement is
invalid). Only measured bands have a magnitude. A fault of one band (`FAULTS`) affects that band alone, never the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from zmill.inputs.photometry.batch import MAGNITUDES, ZERO_POINTS
from zmill.sentinels import Range, Sentinels

DETECTION_SIGMA = 1.0
"""A flux below this many times its error is undetected; the limit is this many times the error."""
FAILED_SIGMA = 5.0
"""A flux more than this many errors below zero cannot be noise: the measurement failed and the band is unobserved."""
BRIGHTEST, FAINTEST = 0.0, 50.0
"""Valid dereddened AB magnitudes lie between these; 0 itself, 99 and -9999 are undeclared sentinels."""
LARGEST_ERROR = 1000.0
"""A magnitude with a larger error is undetected: its signal-to-noise ratio is below 0.001, or the error is an undeclared
sentinel. The limit is the flux of one error, as for fluxes."""

FAULTS = {
    "value_infinite": "an infinite magnitude or flux; the band is unobserved",
    "magnitude_out_of_range": f"an AB magnitude that is not between {BRIGHTEST:g} and {FAINTEST:g}; the band is unobserved, or "
    "undetected where it is a flux that is almost zero",
    "zero_point_not_finite": "the zero point is NaN, null or infinite; the band is unobserved",
    "flux_far_below_zero": f"a flux more than {FAILED_SIGMA:g} errors below zero; the band is unobserved",
    "error_negative": "the error is negative; the band is unobserved",
    "error_infinite": "the error is infinite; the band is unobserved",
    "error_zero": "the error is zero; the value is kept and its error unknown, or the band unobserved where the value is zero too",
    "error_out_of_range": f"the error is above {LARGEST_ERROR:g} magnitudes; the band is undetected",
    "limit_out_of_range": f"a limit that is not between magnitude {BRIGHTEST:g} and {FAINTEST:g}; the limit is unknown",
}
"""Faults of one band of a row, and the state that each gives the band."""

Floats = NDArray[np.floating]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class BandState:
    """A band of n rows; all arrays (n,).

    mag, magerr, maglim : AB magnitudes; NaN where missing. `magerr` is also NaN where the error of a measured band is
        unknown; `maglim` is NaN where the band is not undetected or its limit is unknown.
    undetected, unobserved : the state, never both; the band is measured where both are False.
    faults : fault name (of `FAULTS`) -> rows that have it.
    """

    mag: Floats
    magerr: Floats
    maglim: Floats
    undetected: Booleans
    unobserved: Booleans
    faults: dict[str, Booleans] = field(default_factory=dict)

    @classmethod
    def never(cls, n: int) -> BandState:
        """A band that the survey has never observed."""
        nothing = np.full(n, np.nan, np.float32)
        return cls(nothing, nothing, nothing, np.zeros(n, np.bool_), np.ones(n, np.bool_))


def band_state(
    value: Floats,
    error: Floats | None,
    photometry: str,
    sentinels: Sentinels,
    vega_to_ab: float = 0.0,
    softening: float | None = None,
    zero_point: float | Floats | None = None,
    errors: str = "sigma",
    absorbed: float | Floats = 0.0,
) -> BandState:
    """Convert values and errors as the survey writes them to AB magnitudes and states.

    Parameters
    ----------
    value : (n,) magnitudes, luptitudes or fluxes, according to `photometry`; null is NaN.
    error : (n,) their errors, in the form `errors`, or None where the survey has none.
    vega_to_ab : added to Vega magnitudes.
    softening : b of luptitudes, in maggies.
    zero_point : for `photometry` flux: AB magnitude of a flux of 1, one number or (n,).
    absorbed : Galactic extinction in magnitudes, subtracted from magnitudes and limits; one number or (n,).

    Notes
    -----
    A sentinel in the error column means that the error is unknown, unless `sentinels.error` gives it another meaning. Fluxes below
    `DETECTION_SIGMA` errors are undetected, with the magnitude of `DETECTION_SIGMA` errors as the limit; fluxes more than
    `FAILED_SIGMA` errors below zero are unobserved. An inverse variance of 0 is an unobserved band.
    """
    is_magnitude = photometry in ("ab_magnitude", "vega_magnitude")
    undetected, unobserved = is_any(value, sentinels.undetected), is_any(value, sentinels.unobserved)
    if sentinels.nonfinite == "undetected":
        undetected |= np.isnan(value) & ~unobserved
    else:
        unobserved |= np.isnan(value)
    unobserved &= ~undetected
    faults: dict[str, Booleans] = {}

    def fault(name: str, where: Booleans) -> None:
        """Record a fault where it occurs."""
        if where.any():
            faults[name] = where

    # Most rows have no fault: faults are detected with few passes and handled only where they occur.
    limited = known = np.zeros(len(value), np.bool_)
    sigma: Floats = np.full(len(value), np.nan, value.dtype)
    if error is not None:
        stated = is_any(error, [*sentinels.undetected, *sentinels.unobserved])
        if sentinels.error.unobserved or sentinels.error.upper_limit:
            lost = is_any(error, sentinels.error.unobserved)
            limited = is_any(error, sentinels.error.upper_limit) & ~lost & ~undetected & ~unobserved
            unobserved |= lost
            undetected &= ~lost
            stated |= lost | limited
        if errors == "inverse_variance":
            unobserved |= (error == 0) & ~stated & ~undetected
        sigma = np.where(stated, np.nan, error) if stated.any() else error
        if errors == "inverse_variance":
            sigma = _of_inverse_variance(sigma)
        elif errors == "signal_to_noise":
            signal = value
            if photometry == "luptitude":
                assert softening is not None
                signal = luptitude_to_flux(np.where(np.abs(value) <= FAINTEST, value, np.nan), softening)
            sigma = _of_signal_to_noise(sigma, None if is_magnitude else signal)
        known = (sigma > 0) & (sigma < np.inf)
        odd = ~known
        odd &= ~(undetected | unobserved | limited)
        if odd.any():
            bad = odd & (sigma <= 0)
            none = bad & (sigma == 0)
            fault("error_zero", none)
            fault("error_negative", bad & ~none)
            unobserved |= bad & (~none | ((value == 0) & (not is_magnitude)))
            endless = odd & (sigma == np.inf)
            fault("error_infinite", endless)
            unobserved |= endless
    limit: Floats = np.full(len(value), np.nan, value.dtype)
    if sentinels.limit_in_error and error is not None:
        limit = np.where(undetected & known, error, np.nan)
    # Luptitudes beyond this range overflow; offset and extinction could shift invalid magnitudes into the valid range.
    most = np.inf if photometry in ZERO_POINTS or photometry == "flux" else FAINTEST
    odd = ~(np.abs(value) <= most) if most == FAINTEST else np.isinf(value)
    if most == FAINTEST:
        odd |= value == 0
    odd &= ~(undetected | unobserved)
    if odd.any():
        infinite = odd & np.isinf(value)
        fault("value_infinite", infinite)
        fault("magnitude_out_of_range", odd & ~infinite)
        unobserved |= odd
        limited = limited & ~odd
    undetected |= limited
    usable = ~(undetected | unobserved)
    some_limited = bool(limited.any())
    values = np.where(usable | limited if some_limited else usable, value, np.nan)
    sigma = np.where(known & usable, sigma, np.nan)

    mag: Floats
    magerr: Floats
    maglim: Floats
    if is_magnitude:
        mag, magerr, maglim = values, sigma, limit
        if some_limited:
            mag, maglim = np.where(limited, np.nan, values), np.where(limited, values, limit)
        offset = value.dtype.type(vega_to_ab) - np.asarray(absorbed, value.dtype)
        if np.any(offset):
            mag, maglim = mag + offset, maglim + offset
    else:
        flux: Floats
        flux_error: Floats
        zero: float | Floats | None
        if photometry == "luptitude":
            assert softening is not None
            sinh = np.sinh(-values.astype(np.float64) / MAGNITUDES - np.log(softening))
            flux, slope = 2 * softening * sinh, 2 * softening * np.sqrt(1 + sinh**2) / MAGNITUDES
            flux_error = sigma if errors == "signal_to_noise" else slope * sigma
            limit_flux = luptitude_to_flux(limit, softening)
            zero = 0.0
        else:
            flux, flux_error, limit_flux = values.astype(np.float64), sigma.astype(np.float64), limit.astype(np.float64)
            zero = ZERO_POINTS.get(photometry, zero_point)
            assert zero is not None
            if isinstance(zero, np.ndarray):
                unknown = ~np.isfinite(zero) & ~unobserved
                fault("zero_point_not_finite", unknown)
                unobserved |= unknown
                undetected &= ~unknown
                usable, limited = usable & ~unknown, limited & ~unknown
        failed = usable & (flux < -FAILED_SIGMA * flux_error)
        if failed.any():
            fault("flux_far_below_zero", failed)
            unobserved |= failed
            usable &= ~failed
        below = usable & ((flux <= 0) | (flux < DETECTION_SIGMA * flux_error))
        undetected |= below
        usable &= ~below
        mag = flux_to_magnitude(np.where(usable, flux, np.nan), zero) - absorbed
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            magerr = np.where(usable, MAGNITUDES * flux_error / flux, np.nan)
        limit_flux = np.where(below, DETECTION_SIGMA * flux_error, np.where(limited, flux, limit_flux))
        maglim = flux_to_magnitude(limit_flux, zero) - absorbed

    strange = (mag <= BRIGHTEST) | (mag > FAINTEST)
    if strange.any():
        fault("magnitude_out_of_range", strange | faults.get("magnitude_out_of_range", False))
        faint = strange & (mag > FAINTEST) & (not is_magnitude)
        undetected |= faint
        unobserved |= strange & ~faint
        mag, magerr = np.where(strange, np.nan, mag), np.where(strange, np.nan, magerr)
    strange = magerr > LARGEST_ERROR
    if strange.any():
        fault("error_out_of_range", strange)
        undetected |= strange
        with np.errstate(invalid="ignore"):
            maglim = np.where(strange, mag - 2.5 * np.log10(magerr / MAGNITUDES), maglim)
        mag, magerr = np.where(strange, np.nan, mag), np.where(strange, np.nan, magerr)
    if sentinels.limit_in_error or some_limited or not is_magnitude or strange.any():
        maglim = np.where(undetected, maglim, np.nan)
    strange = (maglim <= BRIGHTEST) | (maglim > FAINTEST)
    if strange.any():
        fault("limit_out_of_range", strange)
        maglim = np.where(strange, np.nan, maglim)
    return BandState(mag, magerr, maglim, undetected, unobserved, faults)


def flux_to_magnitude(flux: Floats, zero_point: float | Floats) -> Floats:
    """AB magnitudes of fluxes: zero_point - 2.5 log10(flux); NaN for fluxes that are not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flux > 0, zero_point - 2.5 * np.log10(flux), np.nan)


def luptitude_to_flux(luptitude: Floats, softening: float) -> NDArray[np.float64]:
    """Fluxes in maggies of asinh magnitudes: the inverse of Lupton, Gunn & Szalay 1999, eq. 3.

    Parameters
    ----------
    softening : b, in maggies.
    """
    return np.asarray(2 * softening * np.sinh(-luptitude.astype(np.float64) / MAGNITUDES - np.log(softening)))


def _of_inverse_variance(ivar: Floats) -> Floats:
    """Standard deviations of inverse variances: negative where the inverse variance is negative, infinite where it is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(ivar < 0, -1, 1 / np.sqrt(np.abs(ivar)))


def _of_signal_to_noise(ratio: Floats, flux: Floats | None) -> Floats:
    """Standard deviations, in magnitudes where `flux` is None; negative where the ratio and the flux differ in sign.

    The error of a flux of 0 is unknown: its signal-to-noise ratio is 0 for any error.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if flux is None:
            return np.where(ratio == 0, np.inf, MAGNITUDES / ratio)
        known = np.isfinite(flux) & (flux != 0)
        return np.where(known, np.where(ratio == 0, np.inf, flux / ratio), np.nan)


def is_any(values: Floats, sentinels: Sequence[float | Range | None]) -> Booleans:
    """Whether a value is one of the sentinels, each rounded to the type of the file."""
    found = np.zeros(len(values), np.bool_)
    for sentinel in sentinels:
        if sentinel is None:
            found |= np.isnan(values)
        elif isinstance(sentinel, Range):
            low, high = (
                (-np.inf if sentinel.min is None else sentinel.min),
                (np.inf if sentinel.max is None else sentinel.max),
            )
            with np.errstate(over="ignore"):
                found |= (values >= values.dtype.type(low)) & (values <= values.dtype.type(high))
        else:
            with np.errstate(over="ignore"):
                found |= values == values.dtype.type(sentinel)
    return found
