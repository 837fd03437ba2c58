"""Positions of galaxies: a log-normal density field in thin redshift shells, with groups.

The angular correlation of the density field is w(theta) ~ theta^-0.8, the power law of galaxy surveys (Coil et al. 2004). Galaxies
in a group share a redshift within its velocity dispersion and are distributed around its center.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from zmill.simulate.field import Field
from zmill.simulate.galaxies import Z_MAX, Z_MIN, comoving_distance
from zmill.units import LIGHT_SPEED_KM_S

Array = NDArray[np.float64]

SHELL = 0.01
"""Thickness of a shell in ln(1 + z), about 40 Mpc."""
CELL = 0.75 / 60
"""Size of the cells of the density field, degrees."""
CONTRAST = 0.9
"""Standard deviation of the log density of a shell, smoothed over 1 Mpc."""
GROUPED_BLUE, GROUPED_RED = 0.15, 0.45
"""Fraction of the galaxies in groups; Yang et al. 2007 find half of the red ones."""
MEAN_RICHNESS = 6.0


def positions(
    rng: np.random.Generator, field: Field, z: Array, luminosity: Array, red: NDArray[np.bool_]
) -> tuple[Array, Array, Array, NDArray[np.int64]]:
    """Draw positions of galaxies, and their final redshifts.

    Parameters
    ----------
    z : (n,) redshifts as drawn from the luminosity function.
    luminosity : (n,) a quantity that increases with luminosity; the most luminous member of a group is at its center.
    red : (n,) whether a galaxy is red; a larger fraction of red galaxies is in groups.

    Returns
    -------
    x, y : (n,) degrees within the field.
    z : (n,) redshifts; members of a group have the redshift of the group plus their velocity.
    group : (n,) number of the group, -1 for the rest.
    """
    n = len(z)
    x, y, final_z = np.empty(n), np.empty(n), z.copy()
    group = np.full(n, -1, np.int64)
    shell = np.floor(np.log1p(z) / SHELL).astype(np.int64)
    in_group = rng.uniform(0, 1, n) < np.where(red, GROUPED_RED, GROUPED_BLUE)
    order = np.argsort(shell, kind="stable")
    edges = np.flatnonzero(np.diff(shell[order], prepend=-1, append=np.iinfo(np.int64).max))
    groups = 0
    for start, end in pairwise(edges):
        rows = order[start:end]
        distance = float(comoving_distance(np.median(z[rows], keepdims=True))[0])
        density = _log_normal(rng, field, distance)
        free, members = rows[~in_group[rows]], rows[in_group[rows]]
        x[free], y[free] = _from_density(rng, field, density, len(free))
        if len(members) == 0:
            continue
        number = max(1, round(len(members) / MEAN_RICHNESS))
        richness = rng.pareto(1.8, number) + 0.3
        of = rng.choice(number, len(members), p=richness / richness.sum())
        size = np.bincount(of, minlength=number)
        center_x, center_y = _from_density(rng, field, density**2, number)
        low = np.log1p(z[rows]).min()
        center_z = np.expm1(rng.uniform(low, low + SHELL, number))
        radius = 0.6 * (np.maximum(size, 1) / MEAN_RICHNESS) ** (1 / 3)  # comoving Mpc
        dispersion = 250.0 * (np.maximum(size, 1) / MEAN_RICHNESS) ** 0.4  # km/s
        distance_out = np.degrees(radius[of] * rng.uniform(0, 1, len(members)) / distance)  # surface density ~ 1/r
        distance_out[_most_luminous(of, luminosity[members], number)] = 0.0
        angle = rng.uniform(0, 2 * np.pi, len(members))
        x[members] = center_x[of] + distance_out * np.cos(angle)
        y[members] = center_y[of] + distance_out * np.sin(angle)
        velocity = rng.normal(0, dispersion[of])
        final_z[members] = (1 + center_z[of]) * (1 + velocity / LIGHT_SPEED_KM_S) - 1
        group[members] = groups + of
        groups += number
    x, y = np.mod(x, field.width), np.mod(y, field.height)  # periodic boundaries
    return x, y, np.clip(final_z, Z_MIN, Z_MAX), group


def _most_luminous(of: NDArray[np.int64], luminosity: Array, number: int) -> NDArray[np.int64]:
    """Row of the most luminous member of each group that has members."""
    order = np.lexsort((luminosity, of))
    last = np.flatnonzero(np.diff(of[order], append=number))
    return np.asarray(order[last], np.int64)


def _log_normal(rng: np.random.Generator, field: Field, distance: float) -> Array:
    """(ny, nx) relative density, positive with mean 1, of a shell at a comoving distance in Mpc."""
    ny, nx = max(4, round(field.height / CELL)), max(4, round(field.width / CELL))
    cell = np.radians(CELL) * distance  # Mpc
    kx, ky = np.fft.rfftfreq(nx, cell) * 2 * np.pi, np.fft.fftfreq(ny, cell) * 2 * np.pi
    k = np.hypot(ky[:, None], kx[None, :])
    # a surface power spectrum of k^-1.2 is w ~ r^-0.8; flat above 100 Mpc, smoothed below 1 Mpc
    power = (k + 2 * np.pi / 100) ** -1.2 * np.exp(-((k * 1.0) ** 2))
    power[0, 0] = 0
    noise = np.fft.rfft2(rng.normal(0, 1, (ny, nx)))
    gaussian = np.fft.irfft2(noise * np.sqrt(power), s=(ny, nx))
    # scaled so that an infinite field has a log density of standard deviation `CONTRAST`
    k_fine = np.linspace(1e-3, 4, 4000)
    variance = np.trapezoid(k_fine * (k_fine + 2 * np.pi / 100) ** -1.2 * np.exp(-(k_fine**2)), k_fine) / (2 * np.pi)
    density = np.exp(CONTRAST / np.sqrt(variance * cell**2) * gaussian)
    return np.asarray(density / density.mean())


def _from_density(rng: np.random.Generator, field: Field, density: Array, n: int) -> tuple[Array, Array]:
    """n positions with probability proportional to the density."""
    ny, nx = density.shape
    cumulative = np.cumsum(density)
    cell = np.searchsorted(cumulative, rng.uniform(0, cumulative[-1], n), side="right")
    cell = np.minimum(cell, nx * ny - 1)
    x = (cell % nx + rng.uniform(0, 1, n)) * field.width / nx
    y = (cell // nx + rng.uniform(0, 1, n)) * field.height / ny
    return x, y
