"""Mean-color imputation against a plain implementation, row by row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from zmill.inputs.photometry.batch import bits
from zmill.inputs.photometry.impute import ColorSums, MeanColors, fill


@st.composite
def photometry(draw: st.DrawFn, rows: int = 30) -> np.ndarray:
    """(n, bands) magnitudes with missing bands; some bands are missing in every row."""
    bands, n = draw(st.integers(1, 7)), draw(st.integers(0, rows))
    mag = draw(arrays(np.float32, (n, bands), elements=st.floats(10, 30, width=16)))
    missing = draw(arrays(bool, (n, bands)))
    never = draw(st.integers(-3, bands - 1))
    mag[missing] = np.nan
    if never >= 0:
        mag[:, never] = np.nan
    return mag


def learn(mag: np.ndarray) -> MeanColors:
    sums = ColorSums([f"b{n}" for n in range(mag.shape[1])])
    sums.add(list(mag.T))
    return sums.colors()


def slow_colors(mag: np.ndarray) -> list[float]:
    means = []
    for band in range(mag.shape[1] - 1):
        both = [float(row[band]) - float(row[band + 1]) for row in mag if not np.isnan(row[band] + row[band + 1])]
        means.append(sum(both) / len(both) if both else np.nan)
    return means


def slow_fill(row: np.ndarray, color: list[float]) -> list[float]:
    """methods.md: each step sees the measured values and those of earlier steps only."""
    values: list[float] = [float(v) for v in row]
    while True:
        new = list(values)
        for band, value in enumerate(values):
            if not np.isnan(value):
                continue
            sides = []
            if band > 0:
                sides.append(values[band - 1] - color[band - 1])
            if band + 1 < len(values):
                sides.append(values[band + 1] + color[band])
            sides = [side for side in sides if not np.isnan(side)]
            if sides:
                new[band] = sum(sides) / len(sides)
        if np.array_equal(new, values, equal_nan=True):
            return values
        values = new


@settings(max_examples=150, deadline=None)
@given(photometry())
def test_agrees_with_the_row_by_row_definition(mag: np.ndarray) -> None:
    colors = learn(mag)
    np.testing.assert_allclose(colors.color, slow_colors(mag), rtol=0, atol=1e-9)
    filled, _ = fill(list(mag.T), colors)
    expected = [slow_fill(row, slow_colors(mag)) for row in mag]
    if len(mag):
        np.testing.assert_allclose(np.stack(filled, axis=1), expected, rtol=0, atol=2e-4)


@settings(max_examples=100, deadline=None)
@given(photometry())
def test_measured_bands_are_untouched_and_the_mask_says_what_was_filled(mag: np.ndarray) -> None:
    before = mag.copy()
    filled, imputed = fill(list(mag.T), learn(mag))
    out = np.stack(filled, axis=1)
    measured = np.isfinite(mag)
    marked = bits(imputed, mag.shape[1])
    assert np.array_equal(mag, before, equal_nan=True)
    assert np.array_equal(out[measured].view(np.int32), mag[measured].view(np.int32))
    assert not np.any(marked & measured)
    assert np.array_equal(marked | measured, np.isfinite(out))
    assert np.all(np.isnan(out[~measured.any(axis=1)]))


@settings(max_examples=50, deadline=None)
@given(photometry(), st.randoms(use_true_random=False))
def test_colors_do_not_depend_on_the_order_of_rows_and_batches(mag: np.ndarray, random: object) -> None:
    order = np.random.default_rng(random.randint(0, 99)).permutation(len(mag))  # type: ignore[attr-defined]
    sums = ColorSums([f"b{n}" for n in range(mag.shape[1])])
    for batch in np.array_split(mag[order], 3):
        sums.add(list(batch.T))
    np.testing.assert_allclose(sums.colors().color, learn(mag).color, rtol=0, atol=1e-9)
    assert sums.colors().pairs == learn(mag).pairs


def test_both_sides_are_averaged_and_runs_are_filled_outward() -> None:
    colors = MeanColors(("u", "g", "r", "i", "z"), (1.0, 0.5, 0.25, 0.125), (1, 1, 1, 1))
    nan = np.nan
    mag = np.array([[nan, 21.0, nan, 20.0, nan], [20.0, nan, nan, nan, 18.0], [nan, nan, nan, nan, 18.0]], np.float32)
    filled, imputed = fill(list(mag.T), colors)
    first = [22.0, 21.0, (20.5 + 20.25) / 2, 20.0, 19.875]
    # the middle one is filled in the second step, from the two that the first step filled
    second = [20.0, 19.0, ((19.0 - 0.5) + (18.125 + 0.25)) / 2, 18.125, 18.0]
    third = [18.0 + 0.125 + 0.25 + 0.5 + 1.0, 18.875, 18.375, 18.125, 18.0]
    np.testing.assert_allclose(np.stack(filled, axis=1), [first, second, third], atol=1e-5)
    assert imputed.tolist() == [0b10101, 0b01110, 0b01111]


def test_a_band_that_never_exists_stays_empty_and_is_named() -> None:
    mag = np.array([[np.nan, 21.0, 20.0], [np.nan, 22.0, np.nan]], np.float32)
    colors = learn(mag)
    filled, imputed = fill(list(mag.T), colors)
    assert colors.unknown == ["b0-b1"]
    assert np.isnan(filled[0]).all()
    assert filled[2].tolist() == [20.0, 21.0]
    assert imputed.tolist() == [0, 0b100]


def test_json_round_trip_keeps_unknown_colors() -> None:
    colors = learn(np.array([[np.nan, 21.0, 20.5]], np.float32))
    content = colors.to_json()
    assert content["colors"][0]["mean"] is None
    again = MeanColors.from_json(content)
    assert again.pairs == colors.pairs
    np.testing.assert_array_equal(again.color, colors.color)


@pytest.mark.parametrize("bands", [1, 31])
def test_one_band_and_the_most_bands(bands: int) -> None:
    mag = np.full((2, bands), 20.0, np.float32)
    mag[1] = np.nan
    mag[0, 1:-1:2] = np.nan
    filled, imputed = fill(list(mag.T), learn(np.full((3, bands), 20.0, np.float32)))
    assert np.isfinite(np.stack(filled)[:, 0]).all()
    assert imputed[1] == 0
