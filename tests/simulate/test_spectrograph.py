"""Redshift, resolution and pixels: conservation of flux, comparison with direct integrals, and the three instruments."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulate.seds import shaped
from zmill.restframe.cells import FWHM, line_energy
from zmill.restframe.seds import Sed
from zmill.simulate import euclid, gaia, spherex
from zmill.simulate.spectrograph import Arm, Spectrograph
from zmill.units import LIGHT_SPEED_KM_S

EDGES = np.arange(6000.0, 9001.0, 10.0)
SIMPLE = Spectrograph.dispersed(Arm(EDGES, lambda wavelength: 0 * wavelength + 300.0), step=2e-4)
REST = SIMPLE.rest_cells(0.0, 2.0)
ONE = np.zeros(1, np.int64)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 2), st.floats(6200, 8800))
def test_a_line_keeps_its_flux_and_lies_at_its_redshifted_wavelength(z, observed):
    energy = np.zeros((1, REST.size))
    part, added = line_energy(REST, observed / (1 + z), 3.0, 100.0)
    energy[0, part] += added
    flux = SIMPLE.observe(energy, ONE, REST, np.array([z]))[0]
    assert flux @ np.diff(EDGES) == pytest.approx(3.0, rel=1e-6)
    center = flux @ SIMPLE.wavelength / flux.sum()
    assert center == pytest.approx(observed, abs=0.3)  # of pixels of 10 Angstrom
    width = np.sqrt(flux @ (SIMPLE.wavelength - center) ** 2 / flux.sum())
    expected = np.hypot(np.hypot(observed / 300 / FWHM, observed * 100 / LIGHT_SPEED_KM_S), 10 / np.sqrt(12))
    assert width == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("z", [0.0, 0.31, 1.9])
def test_spectra_are_those_of_direct_convolution_and_integration(z):
    sed = shaped(4)
    found = SIMPLE.observe(sed.integral(REST.edges)[None], ONE, REST, np.array([z]))[0]
    fine = np.arange(5500.0, 9500.0, 2.0)
    emitted = np.interp(fine / (1 + z), sed.wave, sed.flux) / (1 + z)
    sigma = fine / 300 / FWHM
    direct = np.empty(len(found))
    for pixel, (low, high) in enumerate(pairwise(EDGES)):
        inside = np.linspace(low, high, 7)
        kernel = np.exp(-(((inside[:, None] - fine) / sigma) ** 2) / 2) / sigma / np.sqrt(2 * np.pi)
        direct[pixel] = np.trapezoid(2 * kernel @ emitted, inside) / (high - low)
    np.testing.assert_allclose(found, direct, rtol=1e-3)


def test_a_redshift_is_a_shift_in_log_wavelength():
    energy = shaped(2).integral(REST.edges)[None]
    shifts = np.array([0, 700, 1234])
    pixel_per_cell = ((slice(0, 300), slice(0, 300), np.eye(300)),)
    cells = Spectrograph(SIMPLE.wavelength, SIMPLE.cells, pixel_per_cell)
    flux = cells.observe(energy, np.zeros(3, np.int64), REST, np.expm1(shifts * REST.step))
    first = round((SIMPLE.cells.start - REST.start) / REST.step)
    for row, shift in enumerate(shifts):
        np.testing.assert_allclose(flux[row], energy[0, first - shift : first - shift + 300], rtol=1e-9)


def test_a_step_of_the_flux_is_conserved_at_any_redshift():
    sed = Sed("step", np.array([500.0, 3000.0, 3000.0, 20_000.0]), np.array([1.0, 1.0, 4.0, 4.0]))
    z = np.linspace(1.2, 1.8, 50)
    flux = SIMPLE.observe(sed.integral(REST.edges)[None], np.zeros(50, np.int64), REST, z)
    edge = 3000 * (1 + z)
    expected = ((edge - 6000) + 4 * (9000 - edge)) / (1 + z)
    np.testing.assert_allclose(flux @ np.diff(EDGES), expected, rtol=2e-4)


def test_bandpasses_measure_a_constant_as_it_is_and_average_over_their_width():
    centers, power = np.array([10_000.0, 10_300.0, 10_600.0] * 1), np.array([41.0, 41.0, 100.0])
    filters = Spectrograph.filtered(centers, power, step=1e-3)
    rest = filters.rest_cells(0, 1)
    flat = Sed("flat", np.array([1000.0, 40_000.0]), np.array([2.0, 2.0])).integral(rest.edges)[None]
    np.testing.assert_allclose(filters.observe(flat, ONE, rest, np.array([0.0]))[0], 2.0, rtol=1e-6)
    np.testing.assert_allclose(filters.observe(flat, ONE, rest, np.array([1.0]))[0], 1.0, rtol=1e-6)
    line = np.zeros((1, rest.size))
    part, added = line_energy(rest, 10_000.0, 1.0, 50.0)
    line[0, part] += added
    peak = filters.observe(line, ONE, rest, np.array([0.0]))[0, 0]
    assert peak == pytest.approx(1 / (10_000 / 41 / FWHM * np.sqrt(2 * np.pi)), rel=0.01)


def test_gaia_has_the_published_samples():
    made = gaia.instrument().spectrograph
    assert len(made.wavelength) == 186
    assert (np.diff(made.wavelength) > 0).all()
    assert 3660 < made.wavelength[0] < 3700 and 9900 < made.wavelength[-1] < 9960
    width = np.diff(gaia.edges(0))
    np.testing.assert_allclose(
        width[[0, -1]] / gaia.along(gaia.edges(0)[[0, -1]], gaia.DISPERSION[0]),
        width[0] / gaia.along(3660.0, gaia.DISPERSION[0]),
        rtol=0.05,
    )
    assert gaia.along(6800.0, gaia.RESOLVING_POWER[0]) == pytest.approx(30)


def test_gaia_has_the_published_distribution_of_redshifts():
    z, magnitude = gaia.draw(np.random.default_rng(1), 200_000)
    assert z.min() >= 0 and z.max() < 0.6
    assert z.mean() == pytest.approx(0.142, abs=0.003)
    assert np.median(z) == pytest.approx(0.126, abs=0.003)
    assert z.std() == pytest.approx(0.079, abs=0.004)
    percent = 100 * np.histogram(z, gaia.Z_EDGES)[0] / len(z)
    assert np.abs(percent - gaia.PERCENT).max() < 0.4
    assert magnitude.min() >= 14 and magnitude.max() <= 20.9
    assert 17.5 < np.median(magnitude) < 19.5


def test_gaia_is_noisier_for_fainter_galaxies():
    made = gaia.instrument()
    width = np.concatenate([np.diff(gaia.edges(number)) for number in (0, 1)])
    ratio = []
    for magnitude in (17.0, 19.0, 20.5):
        flux = 10 ** (-0.4 * (magnitude + 48.6)) * 3e18 / made.spectrograph.wavelength**2 / 1e-17
        ratio.append(np.median(flux / gaia.sigma(flux[None], made.spectrograph.wavelength, width)))
    assert ratio[0] == pytest.approx(50, rel=0.5) and ratio[1] == pytest.approx(10, rel=0.5)
    assert ratio[2] == pytest.approx(3, rel=0.5)


def test_euclid_has_the_published_samples_and_redshifts():
    made = euclid.instrument()
    np.testing.assert_allclose(made.spectrograph.wavelength, 11_000 + 5 * np.arange(1780))
    z, magnitude = made.draw(np.random.default_rng(1), 50_000)
    assert z.min() >= 1 and z.max() < 1.8
    assert z.mean() == pytest.approx(1.4, abs=0.005)
    assert magnitude.min() >= euclid.BRIGHT and magnitude.max() <= euclid.FAINT
    # a line of 2e-16 erg/s/cm2 has an S/N of 3.5 in a window of 26.8 Angstrom
    assert 2e-16 / (euclid.NOISE * 1e-17 * 5 * np.sqrt(26.8 / 5)) == pytest.approx(3.5)


def test_spherex_has_six_bands_of_seventeen_channels():
    made = spherex.instrument()
    wave = made.spectrograph.wavelength
    assert len(wave) == 102
    assert (np.diff(wave) > 0).all()
    assert wave[0] > 7500 and wave[-1] < 50_000
    assert np.bincount(np.searchsorted([11_100, 16_400, 24_200, 38_200, 44_200], wave)).tolist() == [17] * 6
    z, _ = made.draw(np.random.default_rng(1), 50_000)
    assert z.max() <= 2 and np.median(z) == pytest.approx(0.56, abs=0.02)
    limit = 10 ** (-0.4 * (19.6 + 48.6)) * 3e18 / wave[0] ** 2 / 1e-17
    assert limit / made.sigma(np.zeros((1, 102)))[0, 0] == pytest.approx(5, rel=1e-2)
