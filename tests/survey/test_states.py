"""Raw values into states: no sentinel survives, and every band of every row has exactly one state."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zmill.config import Sentinels
from zmill.survey.photometry import MAGNITUDES
from zmill.survey.states import band_state, luptitude_to_flux

RAIL = Sentinels(undetected=[99.0], unobserved=[-99.0, -99.9, -9999.0])
VALUES = st.one_of(
    st.sampled_from([99.0, -99.0, -99.9, -9999.0, np.nan, np.inf, -np.inf, 0.0]),
    st.floats(-90, 90, width=32),
)


@given(
    value=hnp.arrays(np.float32, 8, elements=VALUES.map(np.float32)),
    error=hnp.arrays(np.float32, 8, elements=VALUES.map(np.float32)),
    photometry=st.sampled_from(["ab_magnitude", "nanojansky", "luptitude", "vega_magnitude"]),
    nonfinite=st.sampled_from(["undetected", "unobserved"]),
    limit=st.booleans(),
)
def test_every_band_has_one_state(
    value: np.ndarray, error: np.ndarray, photometry: str, nonfinite: str, limit: bool
) -> None:
    sentinels = RAIL.model_copy(update={"nonfinite": nonfinite, "limit_in_error": limit})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = band_state(value, error, photometry, sentinels, 0.5, 1e-3)
    measured = np.isfinite(state.mag)
    assert not np.any(state.undetected & state.unobserved)
    assert not np.any(measured & (state.undetected | state.unobserved))
    bad = state.infinite | state.out_of_range | state.bad_error
    assert np.all(measured | state.undetected | state.unobserved | bad)
    assert not np.any(np.isinf(state.mag)) and not np.any(np.isinf(state.magerr)) and not np.any(np.isinf(state.maglim))
    assert np.all(np.isnan(state.magerr[~measured])) and np.all(np.isnan(state.maglim[~state.undetected]))
    assert np.all(state.magerr[measured & np.isfinite(state.magerr)] > 0)
    sentinel = np.isin(value, np.float32([99.0, -99.0, -99.9, -9999.0]))
    assert not np.any(sentinel & measured)


@pytest.mark.parametrize("photometry", ["ab_magnitude", "vega_magnitude", "luptitude"])
def test_a_sentinel_that_nobody_declared_is_no_magnitude(photometry: str) -> None:
    value = np.array([99.0, -99.0, -9999.0, 20.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = band_state(value, None, photometry, Sentinels(), 0.5, 1e-10)
    assert state.out_of_range.tolist() == [True, True, True, False]
    assert np.isfinite(state.mag).tolist() == [False, False, False, True]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_sentinels_of_magnitudes(kind: type) -> None:
    value = np.array([21.5, 99, -99, -99.9, np.nan, np.inf, 22, 23, 24, 25], kind)
    error = np.array([0.1, 28.3, -99, -99.9, 0.1, 0.1, 0, -1, np.nan, -99.9], kind)
    state = band_state(value, error, "ab_magnitude", RAIL.model_copy(update={"limit_in_error": True}))
    assert state.undetected.tolist() == [False, True, *[False] * 8]
    assert state.unobserved.tolist() == [False, False, True, True, True, *[False] * 5]
    assert state.infinite.tolist() == [*[False] * 5, True, *[False] * 4]
    assert state.bad_error.tolist() == [*[False] * 6, True, True, False, False]
    assert state.maglim[1] == kind(28.3)
    assert np.isnan(state.magerr[8:]).all() and state.mag[8:].tolist() == [24, 25]


def test_infinity_is_a_state_where_the_survey_says_so() -> None:
    sentinels = Sentinels(undetected=[np.inf])
    state = band_state(np.array([np.inf, -np.inf]), None, "ab_magnitude", sentinels)
    assert state.undetected.tolist() == [True, False] and state.infinite.tolist() == [False, True]


def test_infinite_error_says_nothing() -> None:
    state = band_state(np.array([20.0]), np.array([np.inf]), "ab_magnitude", Sentinels())
    assert state.unobserved[0] and not state.bad_error[0]


def test_nanojansky() -> None:
    flux = np.array([1.0, 3630.780547701, -0.5, 0.5, -20.0, 4.0, -3.0])
    error = np.array([0.1, 36.3, 2.0, 2.0, 2.0, np.nan, np.nan])
    state = band_state(flux, error, "nanojansky", Sentinels())
    assert state.mag[:2] == pytest.approx([31.4, 22.5])
    assert state.magerr[0] == pytest.approx(MAGNITUDES * 0.1)
    assert state.undetected.tolist() == [False, False, True, True, False, False, True]
    assert state.maglim[[2, 3]] == pytest.approx(31.4 - 2.5 * np.log10(2.0))
    assert state.unobserved.tolist() == [*[False] * 4, True, False, False]
    assert state.mag[5] == pytest.approx(31.4 - 2.5 * np.log10(4)) and np.isnan(state.magerr[5])
    assert np.isnan(state.maglim[6])


def test_luptitudes_are_undone() -> None:
    b = 0.9e-10
    flux, error = np.array([1e-8, 3e-10, 1e-11, -5e-11]), np.array([1e-10, 1e-10, 1e-10, 1e-10])
    luptitude = -MAGNITUDES * (np.arcsinh(flux / (2 * b)) + np.log(b))
    luptitude_error = MAGNITUDES * error / np.sqrt(flux**2 + 4 * b**2)
    found, found_error = luptitude_to_flux(luptitude, luptitude_error, b)
    assert found == pytest.approx(flux) and found_error == pytest.approx(error)
    state = band_state(luptitude, luptitude_error, "luptitude", Sentinels(), softening=b)
    assert state.mag[:2] == pytest.approx(-2.5 * np.log10(flux[:2]))
    assert state.undetected.tolist() == [False, False, True, True]
    assert state.maglim[2:] == pytest.approx(25.0)


def test_vega_offset_moves_limits_too() -> None:
    sentinels = Sentinels(undetected=[99.0], limit_in_error=True)
    state = band_state(np.array([20.0, 99.0]), np.array([0.1, 25.0]), "vega_magnitude", sentinels, vega_to_ab=0.9)
    assert state.mag[0] == pytest.approx(20.9) and state.maglim[1] == pytest.approx(25.9)
    assert state.magerr[0] == pytest.approx(0.1)
