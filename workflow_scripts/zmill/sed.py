"""Spectral energy distributions through filters: the colors of redshifted, dusty galaxies behind the intergalactic medium.

Wavelengths are in Angstrom, spectra are f_lambda in any unit of flux density per Angstrom; arrays in, arrays out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LIGHT_SPEED = 2.99792458e18
"""Angstrom per second."""
AB_ZERO_FLUX = 3631e-23
"""erg / s / cm2 / Hz of an object of AB magnitude 0."""

BPZ_TEMPLATES = (
    "El_B2004a", "Sbc_B2004a", "Scd_B2004a", "Im_B2004a", "SB3_B2004a", "SB2_B2004a", "ssp_25Myr_z008", "ssp_5Myr_z008",
)  # fmt: skip
"""The spectra of BPZ from red to blue: Coleman, Wu & Weedman 1980 and Kinney et al. 1996 as recalibrated by
Benitez et al. 2004, then two young Bruzual & Charlot 2003 populations (Coe et al. 2006)."""

DUST = np.array([0.0, 0.1, 0.2, 0.35, 0.5])
"""E(B-V) of the stars of a galaxy at which colors are tabulated; linear in between."""

RESPONSE_FLOOR = 1e-4
"""Part of its peak below which a filter's response is taken as zero: wings that cost time and hold no flux."""


@dataclass(frozen=True)
class Spectra:
    """Spectra on one wavelength grid.

    names : (t,) names.
    wavelength : (w,) Angstrom, rest frame, increasing.
    f_lambda : (t, w).
    """

    names: tuple[str, ...]
    wavelength: Array
    f_lambda: Array

    def __len__(self) -> int:
        return len(self.f_lambda)


@dataclass(frozen=True)
class Filter:
    """A photon-counting response.

    wavelength : (w,) Angstrom, increasing.
    response : (w,) dimensionless; its scale does not matter.
    """

    name: str
    wavelength: Array
    response: Array

    @property
    def pivot(self) -> float:
        """Pivot wavelength, Angstrom."""
        w, r = self.wavelength, self.response
        return float(np.sqrt(np.trapezoid(r * w, w) / np.trapezoid(r / w, w)))


def known_filters() -> list[str]:
    """Names of the filter curves that come with speclite, found without loading it."""
    package = importlib.util.find_spec("speclite")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("filter curves come with the package speclite, which is not installed")
    return sorted(file.stem for file in (Path(package.origin).parent / "data" / "filters").glob("*.ecsv"))


def load_filters(names: Sequence[str]) -> tuple[Filter, ...]:
    """Filter curves by speclite's names (`lsst2023-r`, `sdss2010-g`, `bessell-B`...); ValueError for an unknown name."""
    from speclite import filters as speclite

    loaded = []
    for name in names:
        curve = speclite.load_filter(name)
        response = np.asarray(curve.response, np.float64)
        kept = np.flatnonzero(response > RESPONSE_FLOOR * response.max())
        part = slice(max(kept[0] - 1, 0), kept[-1] + 2)
        response = np.where(response > RESPONSE_FLOOR * response.max(), response, 0.0)[part]
        wavelength = np.asarray(curve.wavelength, np.float64)[part]
        used = np.zeros(
            len(response), bool
        )  # zeros are kept only next to a response, where the trapezoidal rule needs them
        used[:-1] |= response[1:] > 0
        used[1:] |= response[:-1] > 0
        used |= response > 0
        loaded.append(Filter(name, wavelength[used], response[used]))
    return tuple(loaded)


TEMPLATES_END = 25_600.0
"""Angstrom at which six of BPZ's spectra end."""


def load_templates(names: Sequence[str] = BPZ_TEMPLATES, longest: float = TEMPLATES_END) -> Spectra:
    """Spectra that come with BPZ (package desc-bpz), on the union of their wavelengths from 500 to `longest` Angstrom."""
    package = importlib.util.find_spec("desc_bpz")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the spectra of BPZ come with the package desc-bpz, which is not installed")
    folder = Path(package.origin).parent / "data_files" / "SED"
    tables = [np.loadtxt(folder / f"{name}.sed") for name in names]
    wavelength = np.unique(np.concatenate([table[:, 0] for table in tables]))
    wavelength = wavelength[(wavelength >= 500) & (wavelength <= longest)]
    f_lambda = np.stack([np.interp(wavelength, table[:, 0], table[:, 1]) for table in tables])
    return Spectra(tuple(names), wavelength, f_lambda)


def normalized(spectra: Spectra, band: Filter) -> Spectra:
    """Spectra scaled so that each has the same rest-frame flux, 1, through `band` (see `flux_table`)."""
    scale = flux_table(spectra, [band], [0.0], igm=False)[0, :, 0]
    return replace(spectra, f_lambda=spectra.f_lambda / scale[:, None])


def interpolated(spectra: Spectra, per_gap: int) -> Spectra:
    """The spectra with `per_gap` linear mixtures between each and the next; normalize first."""
    between = np.linspace(0, 1, per_gap + 2)[:-1]
    position = np.append((np.arange(len(spectra) - 1)[:, None] + between).ravel(), len(spectra) - 1)
    low = np.minimum(position.astype(int), len(spectra) - 2)
    part = (position - low)[:, None]
    f_lambda = (1 - part) * spectra.f_lambda[low] + part * spectra.f_lambda[low + 1]
    return Spectra(tuple(f"{p:.3f}" for p in position), spectra.wavelength, f_lambda)


def attenuated(spectra: Spectra, ebv: float) -> Spectra:
    """Spectra behind dust of color excess `ebv` (of the stars, magnitudes) by Calzetti's law."""
    return replace(spectra, f_lambda=spectra.f_lambda * 10 ** (-0.4 * ebv * calzetti(spectra.wavelength)))


def calzetti(wavelength: ArrayLike) -> Array:
    """k = A / E(B-V) of starburst galaxies at rest-frame wavelengths: Calzetti et al. 2000, eq. 4, R_V = 4.05.

    The law is defined from 0.12 to 2.2 micron; beyond its ends it goes on with the slope it has there, never below 0.
    """
    micron = np.asarray(wavelength, np.float64) / 1e4

    def ultraviolet(x: Array) -> Array:
        return 2.659 * (-2.156 + 1.509 / x - 0.198 / x**2 + 0.011 / x**3) + 4.05

    def infrared(x: Array) -> Array:
        return 2.659 * (-1.857 + 1.040 / x) + 4.05

    inside = np.maximum(micron, 0.12)
    k = np.where(inside < 0.63, ultraviolet(inside), infrared(inside))
    slope = (ultraviolet(np.array(0.121)) - ultraviolet(np.array(0.12))) / 0.001
    return np.maximum(k + np.where(micron < 0.12, slope * (micron - 0.12), 0.0), 0.0)


_LYMAN = np.array([1215.67, 1025.72, 972.537, 949.743])
_LYMAN_DEPTH = np.array([0.0036, 0.0017, 0.0012, 0.00093])
_LYMAN_LIMIT = 911.75


def igm_transmission(observed: ArrayLike, z: float) -> Array:
    """Mean transmission of the intergalactic medium in front of a source at redshift z.

    Madau 1995: lines Lyman alpha to delta (eq. 12 and 15), and the photoelectric absorption of hydrogen (footnote 3).

    Parameters
    ----------
    observed : (w,) observed wavelengths, Angstrom.
    z : redshift of the source.

    Returns
    -------
    (w,) from 0 to 1.
    """
    observed = np.asarray(observed, np.float64)
    depth = np.zeros_like(observed)
    for line, strength in zip(_LYMAN, _LYMAN_DEPTH, strict=True):
        depth += np.where(observed < line * (1 + z), strength * (observed / line) ** 3.46, 0.0)
    absorber, source = observed / _LYMAN_LIMIT, 1 + z
    ionizing = absorber < source
    absorber = np.where(ionizing, np.maximum(absorber, 1.0), source)
    depth += (
        0.25 * absorber**3 * (source**0.46 - absorber**0.46)
        + 9.4 * absorber**1.5 * (source**0.18 - absorber**0.18)
        - 0.7 * absorber**3 * (absorber**-1.32 - source**-1.32)
        - 0.023 * (source**1.68 - absorber**1.68)
    )
    return np.exp(-np.maximum(depth, 0.0))


def flux_table(spectra: Spectra, filters: Sequence[Filter], z: ArrayLike, igm: bool = True) -> Array:
    """Mean fluxes of redshifted spectra through filters.

    T = int f_lambda(lambda / (1+z)) / (1+z) R lambda dlambda / int R / lambda dlambda

    so that T / c is the mean flux density per unit frequency that the AB magnitude is made of, and the apparent flux of
    a galaxy of luminosity L_lambda = f_lambda is T / (4 pi d_L^2).

    Parameters
    ----------
    spectra : t spectra.
    filters : b filters.
    z : (n,) redshifts.
    igm : absorb by the intergalactic medium.

    Returns
    -------
    (n, t, b) in units of f_lambda times Angstrom squared.
    """
    z = np.atleast_1d(np.asarray(z, np.float64))
    table = np.empty((len(z), len(spectra), len(filters)))
    nodes = np.ascontiguousarray(spectra.f_lambda.T)  # (w, t): one wavelength's values lie together
    for b, band in enumerate(filters):
        weight = _trapezoid_weights(band.wavelength) * band.response
        norm = np.sum(weight / band.wavelength)
        for n, redshift in enumerate(z):
            rest = band.wavelength / (1 + redshift)
            value = weight * band.wavelength / ((1 + redshift) * norm)
            if igm:
                value = value * igm_transmission(band.wavelength, redshift)
            at = np.clip(np.searchsorted(spectra.wavelength, rest, side="right") - 1, 0, len(nodes) - 2)
            part = (rest - spectra.wavelength[at]) / (spectra.wavelength[at + 1] - spectra.wavelength[at])
            value = np.where((part >= 0) & (part <= 1), value, 0.0)  # no flux beyond the ends of a spectrum
            low = at[0]
            share = np.bincount(at - low, value * (1 - part), minlength=at[-1] - low + 2)
            share += np.bincount(at - low + 1, value * part, minlength=at[-1] - low + 2)
            table[n, :, b] = share @ nodes[low : at[-1] + 2]
    return table


def ab_magnitude(flux: ArrayLike) -> Array:
    """AB magnitudes of fluxes as `flux_table` gives them, for f_lambda in erg / s / cm2 / Angstrom; infinite for 0."""
    with np.errstate(divide="ignore"):
        return -2.5 * np.log10(np.asarray(flux, np.float64) / (LIGHT_SPEED * AB_ZERO_FLUX))


def interpolate_types(table: Array, z_grid: Array, z: ArrayLike, kind: ArrayLike) -> Array:
    """Fluxes at any redshift and type, linear in both between the entries of a flux table.

    Parameters
    ----------
    table : (g, t, b) from `flux_table` at the redshifts `z_grid`.
    z_grid : (g,) increasing.
    z : (n,) redshifts within the grid.
    kind : (n,) type as a number: 0 is the first spectrum, 0.5 half way to the second, up to t - 1.

    Returns
    -------
    (n, b).
    """
    z, kind = np.asarray(z, np.float64), np.asarray(kind, np.float64)
    row = np.clip(np.searchsorted(z_grid, z, side="right") - 1, 0, len(z_grid) - 2)
    dz = ((z - z_grid[row]) / (z_grid[row + 1] - z_grid[row]))[:, None]
    column = np.clip(kind.astype(int), 0, table.shape[1] - 2)
    dt = (kind - column)[:, None]
    blue = (1 - dz) * table[row, column + 1] + dz * table[row + 1, column + 1]
    red = (1 - dz) * table[row, column] + dz * table[row + 1, column]
    return np.asarray((1 - dt) * red + dt * blue)


@dataclass(frozen=True)
class Colors:
    """Tabulated fluxes of every type and dust at redshifts z (g,): flux (g, types, dust, bands), the dust being `DUST`."""

    z: Array
    flux: Array

    def fluxes(self, z: Array, kind: Array, dust: Array) -> Array:
        """(n, b) fluxes, in the units of the table; linear in redshift, type and dust between its entries."""
        level = np.clip(np.searchsorted(DUST, dust, side="right") - 1, 0, len(DUST) - 2)
        part = ((dust - DUST[level]) / (DUST[level + 1] - DUST[level]))[:, None]
        out = np.empty((len(z), self.flux.shape[3]))
        for number in range(len(DUST) - 1):
            rows = np.flatnonzero(level == number)
            low = interpolate_types(self.flux[:, :, number], self.z, z[rows], kind[rows])
            high = interpolate_types(self.flux[:, :, number + 1], self.z, z[rows], kind[rows])
            out[rows] = (1 - part[rows]) * low + part[rows] * high
        return out


def _trapezoid_weights(x: Array) -> Array:
    step = np.diff(x)
    weights = np.zeros_like(x)
    weights[:-1] += step / 2
    weights[1:] += step / 2
    return weights
