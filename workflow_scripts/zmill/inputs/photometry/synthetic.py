"""Synthetic training galaxies: training galaxies at slightly different redshift, brightness, type and dust.

A few thousand spectroscopic redshifts sample the redshift range sparsely. Template spectra predict what a galaxy would look like in
between: each training galaxy is fitted at its redshift by a type and dust, and the residuals of the fit are kept as a property of its
spectrum. Its fluxes are then computed at the new redshift, in the same filters and with errors drawn from the sample.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zmill import sed
from zmill.chunks import row_chunks
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.photometry.batch import MAGNITUDES, ZERO_POINT, Photometry, bits, mask_of
from zmill.inputs.photometry.kind import PhotometryKind

Array = NDArray[np.float64]

SOURCES = 20_000
"""Most training galaxies that synthetic galaxies are made from."""
REDSHIFT, BRIGHTNESS, TYPE, REDDENING = 0.03, 0.5, 0.1, 0.03
"""Standard deviations of the random shifts: in ln(1 + z), magnitudes, steps from one spectrum to the next, E(B-V)."""
TYPES_PER_STEP, DUST_STEP = 10, 0.05
"""Grid of types and dust of the fit."""
RARELY = 0.15
"""E(B-V) over which the prior of dust falls by a factor e."""
FLOOR = 0.05
"""Relative error of a spectrum's fluxes, added to those measured when it is fitted."""
REAL, MOST = 0.1, 0.5
"""Standard deviation of the intrinsic residuals (in ln flux), and the largest residual that is kept."""
AT_ONCE = 200
"""Training galaxies fitted at a time."""
ALIKE = 500
"""The error of a flux is drawn from the training rows nearest in flux: 1 / ALIKE of all rows to either side."""


def template_colors(filters: list[sed.Filter], z_max: float) -> sed.Colors:
    """Fluxes of BPZ's spectra with and without dust through filters, at redshifts up to `z_max`."""
    (blue,) = sed.load_filters(["bessell-B"])
    plain = sed.normalized(sed.load_templates(), blue)
    dusty = np.concatenate([sed.attenuated(plain, ebv).f_lambda for ebv in sed.DUST])
    stacked = sed.Spectra(plain.names * len(sed.DUST), plain.wavelength, dusty)
    z = np.expm1(np.linspace(0, np.log1p(z_max) + 0.01, 500))
    table = sed.flux_table(stacked, filters, z).reshape(len(z), len(sed.DUST), len(plain), len(filters))
    return sed.Colors(z, table.transpose(0, 2, 1, 3))


def synthetic_galaxies(rows: LabelledBatch, context: ModelContext, number: int, seed: int) -> LabelledBatch:
    """Make synthetic galaxies from training rows, at redshifts and magnitudes near theirs.

    Parameters
    ----------
    rows : the training rows, on the grid; a row is drawn with probability proportional to its weight.
    context : the survey, with the filter of every band.
    number : number of galaxies to make.

    Returns
    -------
    `number` rows on the grid, of weight 1. A band is observed where the source row has it, and undetected where its flux is
    below the detection limit of the training rows; ebv and further columns are those of the source row.
    """
    survey = context.of(PhotometryKind)
    rng, grid = np.random.default_rng(seed), context.grid
    filters = list(sed.load_filters([survey.filters[band] for band in survey.bands]))
    colors = template_colors(filters, grid.z_max)
    last = colors.flux.shape[1] - 1
    known = np.flatnonzero(rows.batch.measured.any(1) & (rows.weight > 0))
    sources = rows.rows(np.sort(rng.permutation(known)[:SOURCES]))
    type_, ebv, bright, residuals = _fitted(sources, survey.reference, colors, rng)
    chosen = rng.choice(len(sources), number, p=sources.weight / sources.weight.sum())
    own = sources.z[chosen]
    z = _reflected(np.expm1(np.log1p(own) + REDSHIFT * rng.normal(size=number)), grid.z_min, grid.z_max)
    type_ = np.clip(type_[chosen] + TYPE * rng.normal(size=number), 0, last)
    ebv = np.clip(ebv[chosen] + REDDENING * rng.normal(size=number), 0, sed.DUST[-1])
    flux = colors.fluxes(z, type_, ebv)
    flux *= np.exp(_shifted(residuals[chosen], np.log([band.pivot for band in filters]), np.log1p(z) - np.log1p(own)))
    flux *= (bright[chosen] * 10 ** (-0.4 * BRIGHTNESS * rng.normal(size=number)) / flux[:, survey.reference])[:, None]
    return LabelledBatch(_observed(flux, sources.batch[chosen], rows.batch, rng), z, np.ones(number))


def _fitted(
    rows: LabelledBatch, reference: int, colors: sed.Colors, rng: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """Fit rows at their redshifts: (n,) types, dust and fluxes in the reference band, and (n, bands) residuals in ln flux.

    Type and dust are drawn from their posterior. Residuals are shrunk according to their noise; they are 0 where not measured.
    """
    p = rows.batch
    there = p.measured
    flux = np.where(there, _flux(p.mag), 0.0)
    noise = np.where(there, np.nan_to_num(p.magerr / MAGNITUDES), 0.0)
    weight = np.where(there, 1 / np.maximum(flux * np.hypot(noise, FLOOR), 1e-30) ** 2, 0.0)
    last = colors.flux.shape[1] - 1
    types = np.linspace(0, last, last * TYPES_PER_STEP + 1)
    type_, ebv = (x.ravel() for x in np.meshgrid(types, np.arange(0, sed.DUST[-1] + 1e-9, DUST_STEP), indexing="ij"))
    chosen, model = np.empty(len(rows), np.int64), np.empty(flux.shape)
    for part in row_chunks(len(rows), AT_ONCE):
        z = rows.z[part]
        one = colors.fluxes(np.repeat(z, len(type_)), np.tile(type_, len(z)), np.tile(ebv, len(z)))
        one = one.reshape(len(z), len(type_), -1)
        w, f = weight[part, None], flux[part, None]
        scale = (one * f * w).sum(2) / np.maximum((one * one * w).sum(2), 1e-300)
        chi2 = (w * (f - scale[:, :, None] * one) ** 2).sum(2)
        gumbel = rng.gumbel(size=chi2.shape)  # Gumbel-max trick: the argmax is a draw from the posterior
        best = (-0.5 * chi2 - ebv / RARELY + gumbel).argmax(1)
        at = np.arange(len(z))
        chosen[part], model[part] = best, one[at, best] * scale[at, best][:, None]
    residuals = np.log(np.maximum(flux, 1e-30) / np.maximum(model, 1e-30)) * (REAL**2 / (REAL**2 + noise**2))
    residuals = np.where(there, residuals.clip(-MOST, MOST), 0.0)
    return type_[chosen], ebv[chosen], model[:, reference] * np.exp(residuals[:, reference]), residuals


def _shifted(residuals: Array, wavelength: Array, shift: Array) -> Array:
    """(n, bands) residuals of spectra shifted by `shift` (n,) in ln(1 + z).

    They are interpolated linearly between the ln wavelengths (bands,) of the bands, and constant beyond.
    """
    order = np.argsort(wavelength)
    known, values = wavelength[order], residuals[:, order]
    if len(known) < 2:
        return residuals
    at = wavelength - shift[:, None]
    low = (np.searchsorted(known, at) - 1).clip(0, len(known) - 2)
    part = ((at - known[low]) / (known[low + 1] - known[low])).clip(0, 1)
    row = np.arange(len(values))[:, None]
    return (1 - part) * values[row, low] + part * values[row, low + 1]


def _observed(flux: Array, own: Photometry, like: Photometry, rng: np.random.Generator) -> Photometry:
    """Photometry of true fluxes (n, bands) in nJy: the bands of the rows `own` are observed, with errors and limits of `like`."""
    count = len(like.bands)
    seen = ~bits(own.unobserved | own.imputed, count)
    failed = bits(like.undetected, count)
    mag, magerr, maglim = (np.full(flux.shape, np.nan, np.float32) for _ in range(3))
    undetected = np.zeros(flux.shape, bool)
    for band in range(count):
        error, faintest = _errors(flux[:, band], like, band, rng)
        noisy = flux[:, band] + np.nan_to_num(error) * rng.normal(size=len(flux))
        lost = noisy <= (faintest * error if failed[:, band].any() and np.isfinite(faintest) else 0.0)
        undetected[:, band] = lost & seen[:, band]
        kept = seen[:, band] & ~lost
        mag[kept, band] = ZERO_POINT - 2.5 * np.log10(noisy[kept])
        magerr[kept, band] = MAGNITUDES * error[kept] / noisy[kept]
        limits = like.maglim[failed[:, band] & np.isfinite(like.maglim[:, band]), band]
        limit = rng.choice(limits, len(flux)) if len(limits) else _magnitude(error)
        maglim[undetected[:, band], band] = limit[undetected[:, band]]
    return replace(
        own, mag=mag, magerr=magerr, maglim=maglim,
        undetected=mask_of(undetected), unobserved=mask_of(~seen), imputed=np.zeros(len(flux), np.int32),
    )  # fmt: skip


def _errors(flux: Array, like: Photometry, band: int, rng: np.random.Generator) -> tuple[Array, float]:
    """(n,) errors of training rows of similar flux in a band, and their lowest flux-to-error ratio; NaN where no error is known."""
    known = like.measured[:, band] & (like.magerr[:, band] > 0)
    if not known.any():
        return np.full(len(flux), np.nan), np.nan
    theirs = _flux(like.mag[known, band])
    errors = theirs * like.magerr[known, band] / MAGNITUDES
    order = np.argsort(theirs)
    reach = max(1, len(order) // ALIKE)
    index = np.searchsorted(theirs[order], flux) + rng.integers(-reach, reach + 1, len(flux))
    return errors[order[index.clip(0, len(order) - 1)]], float(np.quantile(theirs / errors, 1e-3))


def _reflected(value: Array, low: float, high: float) -> Array:
    """Values, with those outside the range reflected at its ends."""
    value = np.where(value < low, 2 * low - value, value)
    return np.where(value > high, 2 * high - value, value).clip(low, high)


def _flux(magnitude: NDArray[np.float32]) -> Array:
    return 10 ** (0.4 * (ZERO_POINT - magnitude.astype(np.float64)))


def _magnitude(flux: Array) -> Array:
    return ZERO_POINT - 2.5 * np.log10(flux)
