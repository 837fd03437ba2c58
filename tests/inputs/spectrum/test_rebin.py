"""Wavelength grids and rebinning, against a direct integration and published wavelengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmill.inputs.spectrum.grid import WavelengthGrid, air_to_vacuum, edges_of, evenly_in_log
from zmill.inputs.spectrum.rebin import COVERED, Rebinning


def directly(flux: np.ndarray, variance: np.ndarray, good: np.ndarray, old: tuple, new: tuple) -> list[tuple]:
    """Integral, width and variance of the integral in each new pixel, pixel by pixel."""
    found = []
    for low, high in zip(*new, strict=True):
        shared = [max(0.0, min(high, b) - max(low, a)) for a, b in zip(*old, strict=True)]
        terms = [(w, f, v) for w, f, v, g in zip(shared, flux, variance, good, strict=True) if g and w > 0]
        found.append(
            (sum(w * f for w, f, _ in terms), sum(w for w, _, _ in terms), sum(w * w * v for w, _, v in terms))
        )
    return found


@st.composite
def spectra(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Irregular wavelengths, fluxes, variances and masks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pixels = draw(st.integers(3, 40))
    centers = 4000 + np.cumsum(rng.uniform(0.3, 3.0, pixels) * draw(st.sampled_from([1.0, 7.0])))
    good = rng.uniform(size=pixels) > draw(st.sampled_from([0.0, 0.3, 0.9]))
    return centers, rng.normal(1, 3, pixels), rng.uniform(0.1, 5, pixels), good


@settings(max_examples=60, deadline=None)
@given(spectra(), st.integers(2, 30), st.sampled_from(["log10", "linear"]), st.floats(-20, 20))
def test_new_pixels_are_means_over_the_good_old_ones(spectrum: tuple, pixels: int, scale: str, shift: float) -> None:
    centers, flux, variance, good = spectrum
    first, last = centers[0] + shift, centers[-1] + shift
    if scale == "log10":
        grid = WavelengthGrid("log10", np.log10(first), float(np.log10(last / first)) / (pixels - 1), pixels)
    else:
        grid = WavelengthGrid("linear", first, (last - first) / (pixels - 1), pixels)
    old, new = edges_of(centers), grid.edges
    assert (old[0] < old[1]).all() and (old[1][:-1] <= old[0][1:] + 1e-9).all()
    found, ivar = Rebinning.of(old, new).apply(flux[None], np.where(good, 1 / variance, 0)[None])
    expected = directly(flux, variance, good, old, new)
    for number, (integral, width, spread) in enumerate(expected):
        share = width / (new[1] - new[0])[number]
        if abs(share - COVERED) < 1e-6:
            continue  # rounding decides
        if share < COVERED:
            assert found[0, number] == ivar[0, number] == 0
        else:
            assert found[0, number] == pytest.approx(integral / width, rel=1e-6, abs=1e-9)
            assert 1 / ivar[0, number] == pytest.approx(spread / width**2, rel=1e-6)


def test_flux_is_conserved() -> None:
    """The integral over complete pixels is that of the original spectrum, also after going back."""
    rng = np.random.default_rng(1)
    old = WavelengthGrid("linear", 4000.0, 1.3, 700)
    flux = rng.normal(1, 1, (5, 700))
    low, high = old.edges[0][0], old.edges[1][-1]
    coarse = WavelengthGrid("linear", low + (high - low) / 20, (high - low) / 10, 10)
    mean, ivar = Rebinning.of(old.edges, coarse.edges).apply(flux, np.ones(flux.shape))
    widths = [edges[1] - edges[0] for edges in (old.edges, coarse.edges)]
    assert (mean @ widths[1]) == pytest.approx(flux @ widths[0], rel=1e-9)
    assert 1 / ivar[0] == pytest.approx(1 / 70, rel=0.02), "errors of 70 pixels average down"


def test_the_same_grid_changes_nothing() -> None:
    grid = WavelengthGrid("log10", 3.55, 1e-4, 300)
    flux = np.random.default_rng(2).normal(1, 1, (3, 300))
    ivar = np.where(flux > 0, 4.0, 0.0)
    same = Rebinning.of(grid.edges, grid.edges).apply(flux, ivar)
    assert same[0] == pytest.approx(np.where(ivar > 0, flux, 0), rel=1e-9)
    assert same[1] == pytest.approx(ivar, rel=1e-9)


def test_a_gap_is_not_bridged() -> None:
    centers = np.concatenate([np.arange(4000.0, 4100.0), np.arange(5000.0, 5100.0)])
    flux, ivar = np.ones((1, 200)), np.ones((1, 200))
    grid = WavelengthGrid("linear", 4000.0, 10.0, 110)
    _, found = Rebinning.of(edges_of(centers), grid.edges).apply(flux, ivar)
    inside = (grid.wavelength < 4100) | (grid.wavelength > 4995)
    assert (found[0, inside] > 0).all() and (found[0, ~inside] == 0).all()


@pytest.mark.parametrize(
    ("air", "vacuum"),
    [(5006.843, 5008.240), (4958.911, 4960.295), (6562.79, 6564.60), (3727.417, 3728.478), (5889.951, 5891.583)],
)
def test_wavelengths_in_air(air: float, vacuum: float) -> None:
    """Lines of the SDSS list and of NIST, in air and in vacuum."""
    assert air_to_vacuum(np.array([air]))[0] == pytest.approx(vacuum, abs=0.012)


def test_air_to_vacuum_agrees_with_another_formula() -> None:
    """That of Ciddor (1996), inverted by N. Piskunov for VALD3."""
    air = np.geomspace(2000, 50_000, 500)
    s = (1e4 / air) ** 2
    index = (
        1 + 0.00008336624212083 + 0.02408926869968 / (130.1065924522 - s) + 0.0001599740894897 / (38.92568793293 - s)
    )
    assert air_to_vacuum(air) == pytest.approx(air * index, rel=2e-8)
    assert air_to_vacuum(np.array([1500.0]))[0] == 1500


def test_grids_are_restored_exactly() -> None:
    for grid in (
        WavelengthGrid("log10", 3.5563, 1e-4, 4587),
        WavelengthGrid("linear", 3600.0, 0.8, 100),
        WavelengthGrid.of_values(np.geomspace(4000, 9000, 50)),
    ):
        assert WavelengthGrid.from_json(grid.to_json()) == grid
        assert (np.diff(grid.wavelength) > 0).all() and len(grid.wavelength) == len(grid)


def test_a_linear_grid_is_rebinned_evenly_in_log() -> None:
    linear = WavelengthGrid("linear", start=4000, step=20, pixels=100)
    found = evenly_in_log(linear)
    assert found.log_step and abs(found.wavelength[0] - 4000) < 1e-6 and found.wavelength[-1] <= 5980
    assert 100 < len(found) < 125
