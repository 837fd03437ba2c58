"""Conversion of raw values to states: no sentinel survives, and every band of every row has exactly one state."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zmill.inputs.photometry.batch import MAGNITUDES, ZERO_POINTS
from zmill.inputs.photometry.states import BRIGHTEST, FAINTEST, FAULTS, band_state, luptitude_to_flux
from zmill.sentinels import Sentinels

RAIL = Sentinels(undetected=[99.0], unobserved=[-99.0, -99.9, -9999.0])
VALUES = st.one_of(
    st.sampled_from([99.0, -99.0, -99.9, -9999.0, np.nan, np.inf, -np.inf, 0.0]),
    st.floats(-90, 90, width=32),
)


UNITS = ["ab_magnitude", "vega_magnitude", "luptitude", "flux", *ZERO_POINTS]


@settings(deadline=None)
@given(
    value=hnp.arrays(np.float32, 8, elements=VALUES.map(np.float32)),
    error=hnp.arrays(np.float32, 8, elements=VALUES.map(np.float32)),
    photometry=st.sampled_from(UNITS),
    errors=st.sampled_from(["sigma", "inverse_variance", "signal_to_noise"]),
    nonfinite=st.sampled_from(["undetected", "unobserved"]),
    limit=st.booleans(),
    in_error=st.sampled_from([{}, {"upper_limit": [{"max": 0}, None]}, {"unobserved": [0.0]}]),
    zero_point=st.one_of(
        st.floats(-50, 50), hnp.arrays(np.float64, 8, elements=st.one_of(st.floats(-60, 60), st.just(np.nan)))
    ),
    absorbed=st.sampled_from([0.0, 0.3, 20.0]),
)
def test_every_band_has_one_state(
    value: np.ndarray,
    error: np.ndarray,
    photometry: str,
    errors: str,
    nonfinite: str,
    limit: bool,
    in_error: dict[str, Any],
    zero_point: Any,
    absorbed: float,
) -> None:
    definition = {**RAIL.model_dump(), "nonfinite": nonfinite, "limit_in_error": limit, "error": in_error}
    sentinels = Sentinels.model_validate(definition)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = band_state(
            value,
            error,
            photometry,
            sentinels,
            0.5,
            1e-9,
            zero_point if photometry == "flux" else None,
            errors,
            absorbed,
        )
    measured = np.isfinite(state.mag)
    assert not np.any(state.undetected & state.unobserved)
    assert np.array_equal(measured, ~(state.undetected | state.unobserved)), "measured, undetected or unobserved"
    assert not np.any(np.isinf(state.mag)) and not np.any(np.isinf(state.magerr)) and not np.any(np.isinf(state.maglim))
    assert np.all(np.isnan(state.magerr[~measured])) and np.all(np.isnan(state.maglim[~state.undetected]))
    assert np.all(state.magerr[measured & np.isfinite(state.magerr)] > 0)
    for numbers in (state.mag, state.maglim):
        given = numbers[np.isfinite(numbers)]
        assert np.all((given > BRIGHTEST) & (given <= FAINTEST)), "no magnitude out of range survives"
    sentinel = np.isin(value, np.float32([99.0, -99.0, -99.9, -9999.0]))
    assert not np.any(sentinel & measured)
    assert state.faults.keys() <= FAULTS.keys() and all(rows.any() for rows in state.faults.values())
    explained = np.zeros(8, bool)
    for rows in state.faults.values():
        explained |= rows
    spoilt = np.isinf(value) | ((np.abs(value) > FAINTEST) & (photometry not in ZERO_POINTS) & (photometry != "flux"))
    declared = sentinel | np.isnan(value) | np.isin(error, np.float32([0.0])) | (bool(in_error) & ~(error > 0))
    assert np.all(explained[spoilt & ~declared & (error > 0) & (error < 1000)]), "nothing is lost in silence"


@settings(deadline=None)
@given(
    flux=hnp.arrays(np.float64, 6, elements=st.floats(1e-3, 1e9)),
    ratio=hnp.arrays(np.float64, 6, elements=st.one_of(st.floats(0.2, 0.9), st.floats(1.1, 1e3))),
    unit=st.sampled_from(sorted(ZERO_POINTS)),
    errors=st.sampled_from(["sigma", "inverse_variance", "signal_to_noise"]),
    by_row=st.booleans(),
)
def test_any_unit_and_any_kind_of_error_gives_the_same_magnitudes(
    flux: np.ndarray, ratio: np.ndarray, unit: str, errors: str, by_row: bool
) -> None:
    """flux : nanojansky."""
    expected = band_state(flux, flux / ratio, "nanojansky", Sentinels())
    factor = 10 ** (0.4 * (ZERO_POINTS[unit] - ZERO_POINTS["nanojansky"]))
    value, sigma = flux * factor, flux * factor / ratio
    error = {"sigma": sigma, "inverse_variance": sigma**-2, "signal_to_noise": ratio}[errors]
    zero_point = np.full(6, ZERO_POINTS[unit]) if by_row else ZERO_POINTS[unit]
    for found in (
        band_state(value, error, unit, Sentinels(), errors=errors),
        band_state(value, error, "flux", Sentinels(), zero_point=zero_point, errors=errors),
    ):
        for name in ("mag", "magerr", "maglim"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-6, nan_ok=True)
        assert np.array_equal(found.undetected, expected.undetected) and not found.unobserved.any()


@pytest.mark.parametrize("photometry", ["ab_magnitude", "vega_magnitude", "luptitude"])
def test_a_sentinel_that_nobody_declared_is_no_magnitude(photometry: str) -> None:
    value = np.array([99.0, -99.0, -9999.0, 0.0, 20.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = band_state(value, None, photometry, Sentinels(), 0.5, 1e-10)
    assert state.faults["magnitude_out_of_range"].tolist() == [True, True, True, True, False]
    assert state.unobserved.tolist() == [True, True, True, True, False]
    assert np.isfinite(state.mag).tolist() == [False, False, False, False, True]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_sentinels_of_magnitudes(kind: type) -> None:
    value = np.array([21.5, 99, -99, -99.9, np.nan, np.inf, 22, 23, 24, 25, 26], kind)
    error = np.array([0.1, 28.3, -99, -99.9, 0.1, 0.1, 0, -1, np.nan, -99.9, 9999], kind)
    state = band_state(
        value, error, "ab_magnitude", Sentinels(**{**RAIL.model_dump(), "undetected": [99.0], "limit_in_error": True})
    )
    assert state.undetected.tolist() == [False, True, *[False] * 8, True]
    assert state.unobserved.tolist() == [False, False, True, True, True, True, False, True, False, False, False]
    assert {name: np.flatnonzero(rows).tolist() for name, rows in state.faults.items()} == {
        "value_infinite": [5],
        "error_zero": [6],
        "error_negative": [7],
        "error_out_of_range": [10],
    }
    assert state.maglim[1] == kind(28.3)
    assert state.maglim[10] == pytest.approx(26 - 2.5 * np.log10(9999 / MAGNITUDES), abs=1e-5)
    assert np.isnan(state.magerr[6:]).all()
    assert state.mag[[6, 8, 9]].tolist() == [22, 24, 25], "an error that is unknown does not cost the value"


def test_a_bad_number_of_one_band_costs_the_band() -> None:
    value = np.array([5.0, 5.0, 0.0, np.inf, 1e20, 1e-20, 5.0, 2.0])
    error = np.array([0.0, -1.0, 0.0, 1.0, 1e18, np.nan, np.inf, 80.0])
    state = band_state(value, error, "microjansky", Sentinels())
    assert state.unobserved.tolist() == [False, True, True, True, True, False, True, False]
    assert state.undetected.tolist() == [False] * 5 + [True, False, True]
    assert state.mag[0] == pytest.approx(23.9 - 2.5 * np.log10(5)) and np.isnan(state.magerr[0])
    assert {name: np.flatnonzero(rows).tolist() for name, rows in state.faults.items()} == {
        "error_zero": [0, 2],
        "error_negative": [1],
        "error_infinite": [6],
        "value_infinite": [3],
        "magnitude_out_of_range": [4, 5],
    }


def test_extinction_does_not_bring_magnitudes_out_of_range() -> None:
    state = band_state(np.array([20.0, 20.0]), None, "ab_magnitude", Sentinels(), absorbed=np.array([0.5, 33.0]))
    assert state.mag[0] == 19.5 and state.unobserved.tolist() == [False, True]
    assert state.faults["magnitude_out_of_range"].tolist() == [False, True]


def test_inverse_variances() -> None:
    flux, ivar = np.array([10.0, 0.0, 10.0, 10.0, 10.0, 0.5]), np.array([4.0, 0.0, -1.0, np.nan, np.inf, 1.0])
    state = band_state(flux, ivar, "nanomaggy", Sentinels(), errors="inverse_variance")
    assert state.mag[0] == pytest.approx(20.0) and state.magerr[0] == pytest.approx(MAGNITUDES * 0.05)
    assert state.unobserved.tolist() == [False, True, True, False, False, False]
    assert np.isnan(state.magerr[3:]).all() and np.isfinite(state.mag[3:5]).all() and state.undetected[5]
    assert state.maglim[5] == pytest.approx(22.5)
    assert {name: np.flatnonzero(rows).tolist() for name, rows in state.faults.items()} == {
        "error_zero": [4],
        "error_negative": [2],
    }, "an inverse variance of 0 is how surveys write an unobserved band"


def test_signal_to_noise() -> None:
    flux, ratio = np.array([10.0, -1.0, -10.0, 0.0, 10.0, 10.0]), np.array([20.0, -0.5, 3.0, 0.0, 0.0, -2.0])
    state = band_state(flux, ratio, "nanojansky", Sentinels(), errors="signal_to_noise")
    assert state.magerr[0] == pytest.approx(MAGNITUDES / 20)
    assert state.undetected.tolist() == [False, True, False, True, False, False]
    assert state.maglim[1] == pytest.approx(31.4 - 2.5 * np.log10(2.0)) and np.isnan(state.maglim[3])
    assert state.unobserved.tolist() == [False, False, True, False, True, True]
    magnitudes = band_state(
        np.array([20.0, 20.0]), np.array([10.0, -1.0]), "ab_magnitude", Sentinels(), errors="signal_to_noise"
    )
    assert magnitudes.magerr[0] == pytest.approx(MAGNITUDES / 10) and magnitudes.unobserved[1]
    b = 0.9e-10
    luptitude = np.array([-MAGNITUDES * (np.arcsinh(1e-8 / (2 * b)) + np.log(b))])
    state = band_state(luptitude, np.array([50.0]), "luptitude", Sentinels(), softening=b, errors="signal_to_noise")
    assert state.mag[0] == pytest.approx(20.0) and state.magerr[0] == pytest.approx(MAGNITUDES / 50)


def test_zero_points_row_by_row() -> None:
    zero_point = np.array([25.0, 30.0, np.nan])
    state = band_state(np.full(3, 100.0), np.full(3, 1.0), "flux", Sentinels(), zero_point=zero_point)
    assert state.mag[:2] == pytest.approx([20.0, 25.0]) and state.unobserved.tolist() == [False, False, True]
    assert state.faults["zero_point_not_finite"].tolist() == [False, False, True]


def test_sentinels_are_ranges_too() -> None:
    value = np.array([-9.999e9, -9.9988e9, -1.2e9, -5.0, 5.0, np.nan])
    sentinels = Sentinels.model_validate({"unobserved": [{"max": -1e9}], "undetected": [{"min": -6, "max": -5}]})
    state = band_state(value, np.full(6, 1.0), "nanojansky", sentinels)
    assert state.unobserved.tolist() == [True, True, True, False, False, True]
    assert state.undetected.tolist() == [False, False, False, True, False, False] and not state.faults
    error = np.array([-9.999e9, 1.0])
    state = band_state(np.array([20.0, 20.0]), error, "ab_magnitude", sentinels)
    assert np.isnan(state.magerr[0]) and state.mag.tolist() == [20.0, 20.0] and not state.faults


def test_upper_limits_in_the_error_column() -> None:
    cigale = Sentinels.model_validate({"error": {"upper_limit": [{"max": 0}], "unobserved": [-99]}})
    value, error = np.array([5.0, 5.0, 5.0, -1.0, np.nan]), np.array([0.5, -5.0, -99.0, -1.0, -1.0])
    state = band_state(value, error, "microjansky", cigale)
    assert state.undetected.tolist() == [False, True, False, True, False]
    assert state.unobserved.tolist() == [False, False, True, False, True]
    assert state.maglim[1] == pytest.approx(23.9 - 2.5 * np.log10(5.0)) and np.isnan(state.maglim[3])
    assert not state.faults
    wise = Sentinels.model_validate({"error": {"upper_limit": [None]}})
    state = band_state(np.array([15.0, 16.0]), np.array([0.1, np.nan]), "vega_magnitude", wise, vega_to_ab=2.7)
    assert state.maglim[1] == pytest.approx(18.7) and state.mag[0] == pytest.approx(17.7) and np.isnan(state.mag[1])


def test_infinity_is_a_state_where_the_survey_says_so() -> None:
    sentinels = Sentinels(undetected=[np.inf])
    state = band_state(np.array([np.inf, -np.inf]), None, "ab_magnitude", sentinels)
    assert state.undetected.tolist() == [True, False]
    assert state.faults["value_infinite"].tolist() == [False, True]


def test_infinite_error_says_nothing() -> None:
    state = band_state(np.array([20.0]), np.array([np.inf]), "ab_magnitude", Sentinels())
    assert state.unobserved[0] and state.faults["error_infinite"][0]


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
    assert luptitude_to_flux(luptitude, b) == pytest.approx(flux)
    state = band_state(luptitude, luptitude_error, "luptitude", Sentinels(), softening=b)
    assert state.mag[:2] == pytest.approx(-2.5 * np.log10(flux[:2]))
    assert state.magerr[:2] == pytest.approx(MAGNITUDES * error[:2] / flux[:2])
    assert state.undetected.tolist() == [False, False, True, True]
    assert state.maglim[2:] == pytest.approx(25.0)


def test_vega_offset_moves_limits_too() -> None:
    sentinels = Sentinels(undetected=[99.0], limit_in_error=True)
    state = band_state(np.array([20.0, 99.0]), np.array([0.1, 25.0]), "vega_magnitude", sentinels, vega_to_ab=0.9)
    assert state.mag[0] == pytest.approx(20.9) and state.maglim[1] == pytest.approx(25.9)
    assert state.magerr[0] == pytest.approx(0.1)
