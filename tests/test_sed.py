"""Colors of spectra: identities that hold exactly, speclite's own photometry, and a direct integration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import simpson

from zmill import sed

LSST = [f"lsst2023-{band}" for band in "ugrizy"]


@pytest.fixture(scope="module")
def filters() -> tuple[sed.Filter, ...]:
    return sed.load_filters(LSST)


@pytest.fixture(scope="module")
def templates() -> sed.Spectra:
    return sed.load_templates()


def flat_in_frequency() -> sed.Spectra:
    wavelength = np.arange(100.0, 60_000.0, 2.0)
    return sed.Spectra(("flat",), wavelength, sed.AB_ZERO_FLUX * sed.LIGHT_SPEED / wavelength[None] ** 2)


def test_flat_spectrum_has_magnitude_zero_in_every_band(filters):
    magnitudes = sed.ab_magnitude(sed.flux_table(flat_in_frequency(), filters, [0.0], igm=False))
    assert magnitudes == pytest.approx(0, abs=1e-4)


def test_redshift_brightens_a_flat_spectrum_by_one_plus_z(filters):
    # f_nu observed = (1 + z) L_nu / (4 pi d_L^2), Hogg et al. 2002, eq. 8
    z = np.array([0.5, 1.0, 3.0])
    magnitudes = sed.ab_magnitude(sed.flux_table(flat_in_frequency(), filters, z, igm=False))
    assert magnitudes == pytest.approx(np.broadcast_to(-2.5 * np.log10(1 + z)[:, None, None], (3, 1, 6)), abs=1e-3)


def test_magnitudes_are_those_of_speclite(templates):
    import astropy.units as u
    from speclite import filters as speclite

    curves = speclite.load_filters("lsst2023-*")
    wavelength = np.arange(3000.0, 11_100.0, 1.0)
    ours = sed.ab_magnitude(sed.flux_table(templates, sed.load_filters(curves.names), [0.0], igm=False))[0]
    for kind, name in enumerate(templates.names):
        f_lambda = np.interp(wavelength, templates.wavelength, templates.f_lambda[kind])
        theirs = curves.get_ab_magnitudes(f_lambda * u.erg / u.s / u.cm**2 / u.AA, wavelength * u.AA)
        assert ours[kind] == pytest.approx(np.array([theirs[n][0] for n in curves.names]), abs=0.005), name


def test_color_of_a_redshifted_template_by_direct_integration(filters, templates):
    z, kind = 0.7, 1

    def mean_flux(band: sed.Filter) -> float:
        x = np.arange(band.wavelength[0], band.wavelength[-1], 0.02)
        f = np.interp(x / (1 + z), templates.wavelength, templates.f_lambda[kind]) / (1 + z)
        response = np.interp(x, band.wavelength, band.response)
        return simpson(f * response * x, x=x) / simpson(response / x, x=x)

    r, i = filters[2], filters[3]
    table = sed.flux_table(templates, (r, i), [z], igm=False)[0, kind]
    direct = -2.5 * np.log10(mean_flux(r) / mean_flux(i))
    assert -2.5 * np.log10(table[0] / table[1]) == pytest.approx(direct, abs=1e-3)


def test_elliptical_is_red_and_starburst_is_blue(filters, templates):
    # Fukugita et al. 1995, table 3: ellipticals at z = 0 have g - r = 0.77 and r - i = 0.39, at z = 0.5 g - r = 1.7
    magnitudes = sed.ab_magnitude(sed.flux_table(templates, filters, [0.0, 0.5]))
    g_r = magnitudes[:, :, 1] - magnitudes[:, :, 2]
    assert g_r[0, 0] == pytest.approx(0.77, abs=0.1)
    assert magnitudes[0, 0, 2] - magnitudes[0, 0, 3] == pytest.approx(0.39, abs=0.1)
    assert g_r[1, 0] == pytest.approx(1.7, abs=0.2)
    assert np.all(np.diff(g_r[0, :4]) < 0)


def test_pivot_wavelengths(filters):
    assert [f.pivot for f in filters] == pytest.approx([3710, 4780, 6220, 7540, 8680, 9730], rel=0.02)


def test_calzetti_known_values():
    # k(V) = R_V = 4.05 and k(B) - k(V) = 1 by definition, within the accuracy of the fit
    assert sed.calzetti(5500.0) == pytest.approx(4.05, abs=0.02)
    assert sed.calzetti(4400.0) - sed.calzetti(5500.0) == pytest.approx(1.0, abs=0.06)
    assert np.all(np.diff(sed.calzetti(np.linspace(500, 30_000, 500))) <= 1e-12)


def test_dust_dims_by_the_law_and_reddens(templates):
    dusty = sed.attenuated(templates, 0.3)
    v = np.searchsorted(templates.wavelength, 5500)
    dimming = -2.5 * np.log10(dusty.f_lambda[2, v] / templates.f_lambda[2, v])
    assert dimming == pytest.approx(0.3 * sed.calzetti(templates.wavelength[v]))


def test_lyman_alpha_forest_of_madau():
    # The mean decrement D_A between Lyman beta and alpha at z = 3.5 is about 0.4: Madau 1995, fig. 2
    z = 3.5
    between = np.linspace(1050, 1200, 50) * (1 + z)
    assert sed.igm_transmission(between, z).mean() == pytest.approx(0.6, abs=0.05)
    assert np.all(sed.igm_transmission(np.linspace(1220, 9000, 50) * (1 + z), z) == 1)
    assert np.all(sed.igm_transmission(np.array([880.0]) * (1 + z), z) < 0.2)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 6), st.floats(500, 12_000))
def test_transmission_is_a_fraction(z, wavelength):
    assert 0 <= sed.igm_transmission(np.array([wavelength]), z)[0] <= 1


def test_u_dropout(filters, templates):
    magnitudes = sed.ab_magnitude(sed.flux_table(templates, filters, [3.2]))
    assert np.all(magnitudes[0, 4:, 0] - magnitudes[0, 4:, 1] > 1.5)


def test_normalized_interpolated_and_table_agree(filters, templates):
    scaled = sed.normalized(templates, filters[1])
    assert sed.flux_table(scaled, filters[1:2], [0.0], igm=False) == pytest.approx(1)
    dense = sed.interpolated(scaled, 2)
    assert len(dense) == 22
    z_grid = np.linspace(0, 1, 11)
    table = sed.flux_table(scaled, filters, z_grid)
    between = sed.interpolate_types(table, z_grid, [0.3, 0.3], [1 / 3, 7.0])
    exact = sed.flux_table(dense, filters, [0.3])[0]
    assert between == pytest.approx(exact[[1, 21]], rel=1e-9)


def test_unknown_filter_is_refused():
    with pytest.raises(ValueError):
        sed.load_filters(["lsst2023-q"])
