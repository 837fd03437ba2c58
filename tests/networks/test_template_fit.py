"""Least squares at every redshift, densities that keep narrow peaks, absorption in the Lyman series."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.toy_spectra import WAVELENGTHS
from zmill.inputs.spectrum.grid import WavelengthGrid
from zmill.networks.template_fit import POLYNOMIAL, WIDTH, Axis, Basis, polynomials, to_grid
from zmill.pdf.grid import Grid
from zmill.restframe.forest import ABSORPTION, transmissions

FINE = WavelengthGrid("log10", start=3.6, step=1e-3, pixels=300)
FINE_GRID = Grid(0.0, 0.5, 501)


def axis_of(wavelengths: WavelengthGrid, grid: Grid) -> Axis:
    return Axis.of(wavelengths.wavelength, wavelengths.log_step, grid)


@pytest.mark.parametrize(
    ("z_min", "absorption"), [(0.0, "None"), (0.0, "Calura12"), (1.9, "Kamble20"), (2.4, "Kamble20"), (2.4, "Calura12")]
)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(0, 3))
@settings(deadline=None, max_examples=8)
def test_the_likelihood_is_that_of_least_squares_with_a_prior(
    z_min: float, absorption: str, seed: int, count: int, terms: int
) -> None:
    """At every redshift, against the Gaussian integral with explicit matrices of shifted and absorbed templates in 64 bits."""
    rng = np.random.default_rng(seed)
    axis = axis_of(WavelengthGrid("log10", start=3.5, step=3e-3, pixels=40), Grid(z_min, z_min + 0.3, 61))
    templates = rng.uniform(0.5, 1.5, (count, axis.rest.size))
    flux, ivar = (
        rng.normal(1, 0.5, (2, axis.size)),
        rng.uniform(0, 4, (2, axis.size)) * (rng.random((2, axis.size)) < 0.8),
    )
    nuisance = polynomials(axis.size, terms)
    basis = Basis(torch.as_tensor(templates).float(), (-1.0, np.inf), axis, absorption)
    given_ = (torch.as_tensor(values).float() for values in (flux, ivar))
    found = basis.likelihood(*given_, nuisance).numpy()
    typical = np.sqrt((templates**2).sum(0))
    observed = np.exp(axis.start + axis.step * np.arange(axis.size))
    for shift in range(axis.shifts):
        # the larger the redshift, the shorter the rest-frame wavelength of the first pixel
        first = axis.shifts - 1 - shift
        seen = slice(first, first + axis.size)
        through = np.ones(axis.size)
        for line in ABSORPTION[absorption]:
            absorbed = observed / (1 + axis.z[shift]) < line.wavelength
            through[absorbed] *= np.exp(-line.a * (observed[absorbed] / line.wavelength) ** line.b)
        assert (through < 0.95).any() == (z_min > 0)
        level = (typical[seen] * through).mean()
        prior = np.append(np.full(count, (level / WIDTH) ** 2), np.full(terms, POLYNOMIAL**-2))
        design = np.vstack([templates[:, seen] * through, nuisance.double().numpy()])
        for row in range(2):
            matrix = (design * ivar[row]) @ design.T + np.diag(prior)
            right = design @ (ivar[row] * flux[row])
            expected = right @ np.linalg.solve(matrix, right) / 2 - np.linalg.slogdet(matrix)[1] / 2
            expected += np.log(prior[:count]).sum() / 2
            assert found[row, shift] == pytest.approx(expected, rel=2e-4, abs=0.02)


@pytest.mark.parametrize("model", ["Kamble20", "Calura12"])
@pytest.mark.parametrize("z", [2.2, 3.0, 4.0])
def test_lyman_alpha_absorbs_as_others_measured(model: str, z: float) -> None:
    """Becker et al. 2013, MNRAS 430, 2067, eq. 5, on other quasars."""
    line, through = transmissions(model, np.array([1215.67 * (1 + z)]))[0]
    assert line == 1215.67
    depth = 0.751 * ((1 + z) / 4.5) ** 2.90 - 0.132
    assert through[0] == pytest.approx(np.exp(-depth), abs=0.07)


@given(st.floats(0.01, 0.49), st.integers(2, 400))
@settings(deadline=None, max_examples=30)
def test_no_peak_is_lost_between_grid_points(z: float, points: int) -> None:
    """The probability of one redshift of the axis is on the two grid points next to it; a flat density stays flat."""
    grid = Grid(0.0, 0.5, points)
    axis = axis_of(FINE, grid)
    gather, share = to_grid(axis.z, grid)
    probability = torch.zeros(1, axis.shifts)
    number = int(np.abs(axis.z - z).argmin())
    probability[0, number] = 1.0
    density = torch.linalg.vecdot(probability[:, gather], share)
    density = grid.normalize(density)[0].double().numpy()
    near = np.flatnonzero(density)
    assert 1 <= len(near) <= 2 and np.abs(grid.z[near] - axis.z[number]).max() <= grid.step
    assert abs(grid.z @ density / density.sum() - axis.z[number]) < 0.1 * grid.step or {0, points - 1} & set(near)
    flat = torch.as_tensor(1 + axis.z)[None].float()
    torch.testing.assert_close(
        grid.normalize(torch.linalg.vecdot(flat[:, gather], share)), torch.full((1, points), 2.0), rtol=1e-3, atol=1e-3
    )


def test_redshifts_of_the_axis_are_as_close_as_the_grid_points() -> None:
    for wavelengths in (FINE, WavelengthGrid("linear", start=4000, step=20, pixels=100), WAVELENGTHS):
        axis = axis_of(wavelengths, FINE_GRID)
        assert np.diff(axis.z).max() <= FINE_GRID.step * 1.0001
        assert axis.z[0] == pytest.approx(FINE_GRID.z_min) and axis.z[-2] < FINE_GRID.z_max <= axis.z[-1] + 1e-6
        place = axis.start + axis.step * axis.places
        pixel = np.median(np.diff(np.log(wavelengths.wavelength)))
        assert np.abs(place - np.log(wavelengths.wavelength)).max() <= pixel / 4 * 1.001
        low, high = axis.rest.range
        assert low <= wavelengths.wavelength[0] / (1 + axis.z[-1])
        assert high >= wavelengths.wavelength[-1] / (1 + FINE_GRID.z_min) * (1 - pixel)
