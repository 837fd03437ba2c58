"""The galaxy population against the numbers that it is made from and against counts of real surveys."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from zmill.simulate import galaxies
from zmill.simulate.field import Field

AREA = 0.4


@pytest.fixture(scope="module")
def drawn() -> galaxies.Galaxies:
    return galaxies.draw(np.random.default_rng(5), Field.of_area(AREA), 24.0)


@pytest.fixture(scope="module")
def magnitudes(drawn):
    return galaxies.magnitudes(drawn)


def test_cumulative_schechter_is_the_integral():
    mu = np.arange(-4, 9, 0.01)
    total = galaxies.BLUE.cumulative(mu)[-1]

    def phi(m: float) -> float:
        x = 10 ** (-0.4 * m)
        return 0.4 * np.log(10) * x**-0.3 * np.exp(-x)

    assert total == pytest.approx(quad(phi, -4, mu[-1])[0], rel=1e-4)


@pytest.mark.parametrize("schechter, red", [(galaxies.BLUE, False), (galaxies.RED, True)])
def test_luminous_galaxies_have_the_density_of_the_luminosity_function(drawn, schechter, red):
    low, high = 0.4, 0.7
    luminous = (drawn.red == red) & (drawn.z > low) & (drawn.z < high)
    luminous &= drawn.mag_abs < schechter.m_star(drawn.z) + 0.5
    z, _, volume = galaxies._distances()
    per_mpc3 = schechter.cumulative(np.arange(-4.0, 0.5 + 1e-9, 0.01))[-1]
    shell = (z > low) & (z < high)
    sky = Field.of_area(AREA).sky_fraction
    expected = np.trapezoid(volume[shell] * schechter.phi_star(z[shell]) * per_mpc3, z[shell]) * sky
    assert luminous.sum() == pytest.approx(expected, rel=0.2)  # walls and voids


def test_counts_are_those_of_deep_surveys(magnitudes):
    # zCOSMOS and COSMOS: about 5 per square arcmin to i = 22.5 and 18 to 22 to i = 24 (Capak et al. 2007)
    per_arcmin2 = [np.sum(magnitudes[:, galaxies.I_BAND] < limit) / AREA / 3600 for limit in (22.5, 24.0)]
    assert 4 < per_arcmin2[0] < 8
    assert 14 < per_arcmin2[1] < 24


def test_mean_redshift_follows_depth(drawn, magnitudes):
    # n(z) ~ z^2 exp(-z / z0), z0 = 0.0417 i - 0.744: LSST Science Book, eq. 3.8, after Coil et al. 2004
    for limit in (23.0, 24.0):
        bright = magnitudes[:, galaxies.I_BAND] < limit
        assert drawn.z[bright].mean() == pytest.approx(3 * (0.0417 * limit - 0.744), rel=0.12)


def test_nothing_is_fainter_than_the_limit(magnitudes):
    assert magnitudes[:, galaxies.I_BAND].max() < 24.0
    assert np.isfinite(magnitudes).all()


def test_red_and_blue_differ_as_they_should(drawn, magnitudes):
    near = (drawn.z > 0.3) & (drawn.z < 0.5)
    g_i = magnitudes[:, 1] - magnitudes[:, 3]
    assert np.median(g_i[near & drawn.red]) > np.median(g_i[near & ~drawn.red]) + 0.7
    luminous = drawn.mag_abs < -20
    assert drawn.type[near & ~drawn.red & luminous].mean() < drawn.type[near & ~drawn.red & ~luminous].mean()


def test_dust_table_is_exact_at_its_levels():
    table = galaxies.colors()
    z, kind = table.z[[50, 50]], np.array([2.0, 2.0])
    fluxes = table.fluxes(z, kind, np.array([0.0, 0.2]))
    assert fluxes[0] == pytest.approx(table.flux[50, 2, 0])
    assert fluxes[1] == pytest.approx(table.flux[50, 2, 2])


def test_distance_modulus_is_astropys():
    assert galaxies.distance_modulus(np.array([0.1, 1.0, 3.0])) == pytest.approx(
        galaxies.COSMOLOGY.distmod([0.1, 1.0, 3.0]).value, abs=1e-4
    )
