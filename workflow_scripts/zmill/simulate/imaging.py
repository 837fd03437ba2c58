"""Imaging surveys that stamps are simulated of: filters, seeing, noise, and the galaxies that are selected.

The noise of a pixel is that of the sky, by the survey's published depth, and the photons of the galaxies. Fluxes are in units in which an AB
magnitude of `ZERO_POINT` has flux 1: nanomaggies, as in SDSS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmill import sed
from zmill.simulate.field import Field, smooth_map
from zmill.simulate.survey import UNDETECTED, YEARS

Array = NDArray[np.float64]
Image = NDArray[np.float32]

ZERO_POINT = 22.5
"""AB magnitude of a flux of 1 (nanomaggies)."""
NOISE_PIXELS = 2.266
"""Pixels whose noise the flux of a point source has, in units of (FWHM / pixel)²: 4 pi / (8 ln 2), for a Gaussian."""
SEEING_SCATTER, SEEING_WITHIN, SEEING_BANDS = 0.10, 0.03, 0.03
"""Standard deviation of ln(FWHM): between fields, within a field, and between the bands of a field, which are not observed at the same time."""
SKY_SCATTER = 0.10
"""Standard deviation of ln(noise) between fields, in each band."""
FINEST = 2.0
"""Smallest FWHM in pixels, below which the pixels do not sample the image."""
DUST_MEAN, DUST_SCATTER, DUST_WITHIN = 0.03, 0.5, 0.3
"""Median E(B-V) of the Milky Way, and standard deviation of its logarithm between fields and within a field."""


@dataclass(frozen=True)
class Imager:
    """An imaging survey.

    bands, filters : names of the bands, and of their curves in speclite.
    pixel_scale : arcsec.
    seeing : (b,) median FWHM in arcsec.
    depth : (b,) AB magnitude of point sources at 5 sigma.
    sky : (b,) AB magnitude per square arcsec of the sky.
    extinction : (b,) A / E(B-V) of the Milky Way.
    floor : (b,) error in magnitudes of catalogue fluxes that is not noise of the pixels.
    selected_by, limit : number of the band, and the magnitude without extinction, by which galaxies are selected.
    farthest : largest redshift.
    faintest_i : LSST i magnitude down to which neighbors are simulated.
    area : square degrees of a field.
    order : HEALPix order of pixels that each have one field at their center.
    """

    bands: tuple[str, ...]
    filters: tuple[str, ...]
    pixel_scale: float
    seeing: tuple[float, ...]
    depth: tuple[float, ...]
    sky: tuple[float, ...]
    extinction: tuple[float, ...]
    floor: tuple[float, ...]
    selected_by: int
    limit: float
    farthest: float
    faintest_i: float
    area: float
    order: int


@dataclass(frozen=True)
class Conditions:
    """Of n stamps in a field. fwhm : (n, b) arcsec. noise : (n, b) standard deviation of the sky per pixel. ebv : (n,) of the Milky Way."""

    fwhm: Array
    noise: Array
    ebv: Array

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> Conditions:
        return Conditions(self.fwhm[rows], self.noise[rows], self.ebv[rows])


def sdss() -> Imager:
    """A survey like the main galaxy sample of SDSS: r < 17.8 (Strauss et al. 2002, AJ 124, 1810) and z < 0.4.

    Depths and the median FWHM of 1.32 arcsec in r: York et al. 2000 (AJ 120, 1579) and the releases' page on the scope of the imaging; the FWHM
    of the other bands follows from wavelength^-0.2. Extinction: Schlafly & Finkbeiner 2011 (ApJ 737, 103), R_V = 3.1. The floors are the accuracy of the
    calibration (Padmanabhan et al. 2008, ApJ 674, 1217).
    """
    filters = tuple(f"sdss2010-{band}" for band in "ugriz")
    pivots = np.array([band.pivot for band in sed.load_filters(filters)])
    return Imager(
        bands=("u", "g", "r", "i", "z"),
        filters=filters,
        pixel_scale=0.396,
        seeing=tuple(1.32 * (pivots / pivots[2]) ** -0.2),
        depth=(22.15, 23.13, 22.70, 22.20, 20.71),
        sky=(22.1, 21.8, 20.9, 20.2, 18.9),
        extinction=(4.239, 3.303, 2.285, 1.698, 1.263),
        floor=(0.02, 0.01, 0.01, 0.01, 0.01),
        selected_by=2,
        limit=17.8,
        farthest=0.4,
        faintest_i=22.0,
        area=4.0,
        order=4,
    )


def lsst() -> Imager:
    """A survey like the first two years of LSST, of galaxies with i < 23.

    FWHM, depths of ten years and sky: Ivezic et al. 2019 (ApJ 873, 111), table 2. Extinction as in the demo sky.
    """
    return Imager(
        bands=("u", "g", "r", "i", "z", "y"),
        filters=tuple(f"lsst2023-{band}" for band in "ugrizy"),
        pixel_scale=0.2,
        seeing=(0.92, 0.87, 0.83, 0.80, 0.78, 0.76),
        depth=tuple(np.array([26.1, 27.4, 27.5, 26.8, 26.1, 24.9]) - 1.25 * np.log10(10 / YEARS)),
        sky=(22.99, 22.26, 21.20, 20.48, 19.60, 18.61),
        extinction=(4.81, 3.64, 2.70, 2.06, 1.58, 1.31),
        floor=(0.005,) * 6,
        selected_by=3,
        limit=23.0,
        farthest=3.0,
        faintest_i=26.0,
        area=0.004,
        order=6,
    )


def conditions(rng: np.random.Generator, imager: Imager, field: Field, x: Array, y: Array) -> Conditions:
    """Seeing, noise and dust at positions in a field (degrees from its corner): smooth within the field, different between fields."""
    scale = field.width / 2
    bands = len(imager.bands)
    log_fwhm = np.log(imager.seeing) + rng.normal(0, SEEING_SCATTER) + rng.normal(0, SEEING_BANDS, bands)
    within = SEEING_WITHIN * smooth_map(rng, x, y, scale)
    fwhm = np.maximum(np.exp(log_fwhm + within[:, None]), FINEST * imager.pixel_scale)
    sigma = sky_noise(imager) * np.exp(rng.normal(0, SKY_SCATTER, bands))
    dust = np.log(DUST_MEAN) + rng.normal(0, DUST_SCATTER) + DUST_WITHIN * smooth_map(rng, x, y, scale)
    return Conditions(fwhm, np.broadcast_to(sigma, fwhm.shape), np.exp(dust))


def sky_noise(imager: Imager) -> Array:
    """(b,) standard deviation of the sky per pixel that gives point sources at the median seeing the survey's depth."""
    pixels = NOISE_PIXELS * (np.array(imager.seeing) / imager.pixel_scale) ** 2
    return np.asarray(flux(np.array(imager.depth)) / 5 / np.sqrt(pixels))


def variance(imager: Imager, expected: Image, noise: Array) -> Image:
    """Variances of pixels: of the sky, and of the photons of the galaxies in proportion to their light over that of the sky.

    Parameters
    ----------
    expected : (n, b, size, size) noiseless flux per pixel.
    noise : (n, b) standard deviation of the sky per pixel.
    """
    sky = flux(np.array(imager.sky)) * imager.pixel_scale**2
    per_flux = (noise**2 / sky)[..., None, None].astype(np.float32)
    return (noise**2)[..., None, None].astype(np.float32) + per_flux * np.maximum(expected, 0)


def measure(
    rng: np.random.Generator, imager: Imager, true: Array, profile: Image, noise: Image, variances: Image
) -> tuple[Array, Array]:
    """Fluxes of galaxies that a fit of their profile to the stamps finds, and their errors, both (n, b).

    The fit weighs all pixels equally, has the true profile, and other galaxies have been subtracted. An error of `Imager.floor` is added
    to that of the pixels.

    Parameters
    ----------
    true : (n, b) total fluxes.
    profile : (n, b, size, size) noiseless flux of the galaxy alone.
    noise, variances : (n, b, size, size) noise of the stamps, and its variance.
    """
    square = np.einsum("nbyx,nbyx->nb", profile, profile, dtype=np.float64)
    found = true * (1 + np.einsum("nbyx,nbyx->nb", profile, noise, dtype=np.float64) / square)
    error = true * np.sqrt(np.einsum("nbyx,nbyx,nbyx->nb", profile, profile, variances, dtype=np.float64)) / square
    floor = np.log(10) / 2.5 * np.array(imager.floor) * true
    return found + floor * rng.normal(0, 1, true.shape), np.hypot(error, floor)


def flux(magnitude: Array) -> Array:
    """Fluxes of AB magnitudes."""
    return np.asarray(10 ** (-0.4 * (magnitude - ZERO_POINT)))


def catalogue_magnitudes(fluxes: Array, errors: Array) -> tuple[Array, Array]:
    """AB magnitudes and errors; below 1 sigma, `UNDETECTED` and the magnitude of 1 sigma."""
    detected = fluxes > errors
    safe = np.where(detected, fluxes, errors)
    magnitude = ZERO_POINT - 2.5 * np.log10(safe)
    relative = 2.5 / np.log(10) * errors / safe
    return np.where(detected, magnitude, UNDETECTED), np.where(detected, relative, magnitude)
