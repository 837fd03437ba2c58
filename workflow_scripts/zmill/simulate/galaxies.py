"""True galaxies: their numbers by redshift, luminosity, type, dust and size, and their magnitudes.

Two populations, each with an evolving Schechter function in the rest-frame B band: Herbel et al. 2017 (JCAP 08, 035),
table 1, after the ALHAMBRA measurement of Lopez-Sanjuan et al. 2017. H0 = 70 km/s/Mpc, Omega_m = 0.3.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache

import numpy as np
from astropy.cosmology import FlatLambdaCDM
from numpy.typing import NDArray

from zmill import sed
from zmill.simulate.field import Field

Array = NDArray[np.float64]

COSMOLOGY = FlatLambdaCDM(H0=70, Om0=0.3)
BANDS = ("u", "g", "r", "i", "z", "y")
LSST = tuple(f"lsst2023-{band}" for band in BANDS)
I_BAND = BANDS.index("i")
Z_MIN, Z_MAX = 0.01, 4.0


@dataclass(frozen=True)
class Schechter:
    """phi(M) dM = 0.4 ln 10 phi_star x^(alpha+1) exp(-x), x = 10^(0.4 (M_star - M)).

    phi_star(z) = density exp(-z / fading) per Mpc3; M_star(z) = magnitude + slope z, in B, AB.
    The fits are valid up to z = 1. Beyond `Z_EVOLVED`, the luminosity is constant and the density declines.
    """

    alpha: float
    density: float
    fading: float
    magnitude: float
    slope: float

    def phi_star(self, z: Array) -> Array:
        """Number density scale per Mpc3."""
        return self.density * np.exp(-z / self.fading - DECLINE * np.maximum(z - Z_EVOLVED, 0))

    def m_star(self, z: Array) -> Array:
        """Characteristic absolute B magnitude."""
        return self.magnitude + self.slope * np.minimum(z, Z_EVOLVED)

    def cumulative(self, mu: Array) -> Array:
        """Galaxies per Mpc3 brighter than each M - M_star of the grid `mu`, for phi_star = 1."""
        x = 10 ** (-0.4 * mu)
        phi = 0.4 * np.log(10) * x ** (self.alpha + 1) * np.exp(-x)
        step = (phi[1:] + phi[:-1]) / 2 * np.diff(mu)
        return np.concatenate([[0.0], np.cumsum(step)])


Z_EVOLVED = 1.4
DECLINE = 0.7
BLUE = Schechter(alpha=-1.3, density=0.00370253, fading=9.73858, magnitude=-20.40492, slope=-0.9408582)
RED = Schechter(alpha=-0.5, density=0.0035097, fading=1.41649, magnitude=-20.37196, slope=-0.70798041)


@dataclass(frozen=True)
class Galaxies:
    """n galaxies.

    z, mag_abs (B, AB), type (0 El ... 7 youngest), dust (E(B-V)), log_size (log10 kpc), red (bool), each (n,).
    """

    z: Array
    mag_abs: Array
    type: Array
    dust: Array
    log_size: Array
    red: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Galaxies:
        return Galaxies(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@cache
def colors(filters: tuple[str, ...] = LSST) -> sed.Colors:
    """Fluxes in filters, named as speclite does, from z = 0 to just above `Z_MAX`, in equal steps of ln(1 + z)."""
    z = np.expm1(np.linspace(0, np.log(Z_MAX + 1.05), 500))
    bands = sed.load_filters(filters)
    (blue,) = sed.load_filters(["bessell-B"])
    plain = sed.load_templates()
    dusty = [sed.normalized(sed.attenuated(plain, ebv), blue).f_lambda for ebv in sed.DUST]
    stacked = sed.Spectra(plain.names * len(sed.DUST), plain.wavelength, np.concatenate(dusty))
    table = sed.flux_table(stacked, bands, z).reshape(len(z), len(sed.DUST), len(plain), len(bands))
    return sed.Colors(z, np.ascontiguousarray(table.transpose(0, 2, 1, 3)))


@cache
def _distances() -> tuple[Array, Array, Array]:
    """Redshifts, comoving distances in Mpc, and comoving volume of the full sky per unit redshift in Mpc3."""
    z = np.linspace(0.0, Z_MAX + 0.1, 4101)
    distance = COSMOLOGY.comoving_distance(z).value
    return z, distance, 4 * np.pi * distance**2 * np.gradient(distance, z)


def comoving_distance(z: Array) -> Array:
    """Comoving distances in Mpc."""
    grid, distance, _ = _distances()
    return np.interp(z, grid, distance)


def distance_modulus(z: Array) -> Array:
    """Distance moduli in magnitudes."""
    return 5 * np.log10(comoving_distance(z) * (1 + z)) + 25


def magnitudes(galaxies: Galaxies) -> Array:
    """(n, 6) AB magnitudes in LSST ugrizy, without extinction by the Milky Way; at most 40."""
    relative = colors().fluxes(galaxies.z, galaxies.type, galaxies.dust)
    apparent = (galaxies.mag_abs + distance_modulus(galaxies.z))[:, None] - 2.5 * np.log10(np.maximum(relative, 1e-12))
    return np.minimum(apparent, 40.0)


def draw(rng: np.random.Generator, field: Field, faintest_i: float) -> Galaxies:
    """Draw all galaxies of a patch of sky down to an i magnitude, red ones first."""
    walls = _walls(rng)
    parts = [_population(rng, field, faintest_i, walls, *kind) for kind in ((RED, True), (BLUE, False))]
    joined = {f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Galaxies)}
    return Galaxies(**joined)


def _walls(rng: np.random.Generator) -> Array:
    """Density relative to the mean at each redshift of `_distances`: the walls and voids along the line of sight of a small field."""
    grid, _, _ = _distances()
    knots = np.arange(0, np.log1p(grid[-1]) + 0.01, 0.01)
    scatter = np.clip(0.12 / np.sqrt(np.maximum(np.expm1(knots), 1e-3)), 0, 0.4)
    log_density = scatter * rng.normal(0, 1, len(knots)) - scatter**2 / 2
    return np.exp(np.interp(np.log1p(grid), knots, log_density))


def _population(
    rng: np.random.Generator, field: Field, faintest_i: float, walls: Array, schechter: Schechter, red: bool
) -> Galaxies:
    grid, _, volume = _distances()
    inside = (grid >= Z_MIN) & (grid <= Z_MAX)
    grid, volume = grid[inside], (volume * walls)[inside]
    mu = np.arange(-4.0, 9.0, 0.01)
    cumulative = schechter.cumulative(mu)
    # brightest i of any type and dust at each redshift, for an absolute B magnitude of 0
    table = colors()
    brightest = -2.5 * np.log10(table.flux[:, :, :, I_BAND].max(axis=(1, 2)))
    limit = faintest_i - distance_modulus(grid) - np.interp(grid, table.z, brightest) - schechter.m_star(grid)
    reach = np.interp(limit, mu, cumulative)
    per_z = schechter.phi_star(grid) * volume * field.sky_fraction * reach
    total = np.concatenate([[0.0], np.cumsum((per_z[1:] + per_z[:-1]) / 2 * np.diff(grid))])
    n = rng.poisson(total[-1])
    z = np.interp(rng.uniform(0, total[-1], n), total, grid)
    relative = np.interp(rng.uniform(0, 1, n) * np.interp(z, grid, reach), cumulative, mu)
    kind, dust = _type_and_dust(rng, z, relative, red)
    galaxies = Galaxies(
        z, relative + schechter.m_star(z), kind, dust, _log_size(rng, z, relative, red), np.full(n, red)
    )
    kept: NDArray[np.bool_] = magnitudes(galaxies)[:, I_BAND] < faintest_i
    return galaxies[kept]


def _type_and_dust(rng: np.random.Generator, z: Array, relative: Array, red: bool) -> tuple[Array, Array]:
    """Types and dust: fainter and more distant galaxies are bluer, and luminous blue galaxies have more dust."""
    n = len(z)
    if red:
        kind = np.abs(rng.normal(0.0, 0.25, n)) + 0.25 * np.minimum(z, 2)
        return np.clip(kind, 0, 0.95), np.minimum(rng.exponential(0.02, n), sed.DUST[-1])
    kind = 2.0 + 0.35 * np.clip(relative, -2, 5) + 0.5 * np.minimum(z, 3) + rng.normal(0, 0.8, n)
    dust = rng.exponential(0.10, n) * 10 ** (-0.1 * np.clip(relative, -2, 4))
    return np.clip(kind, 0.7, 6.8), np.minimum(dust, sed.DUST[-1])


def _log_size(rng: np.random.Generator, z: Array, relative: Array, red: bool) -> Array:
    """Half-light radius on the major axis, log10 kpc: van der Wel et al. 2014, table 1, with luminosity for mass."""
    log_mass = -0.4 * relative  # of M / M_star, where M_star is close to the 5e10 solar masses of the paper
    if red:
        return np.log10(5.6) - 1.48 * np.log10(1 + z) + 0.75 * np.clip(log_mass, -0.6, 2) + rng.normal(0, 0.13, len(z))
    return np.log10(8.9) - 0.75 * np.log10(1 + z) + 0.22 * log_mass + rng.normal(0, 0.18, len(z))
