"""Synthetic galaxies: colors, errors and observed bands like those of the training rows, at the redshifts that they are given."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmill import sed
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.photometry import synthetic as module
from zmill.inputs.photometry.batch import MAGNITUDES, ZERO_POINT, Photometry
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.inputs.photometry.synthetic import synthetic_galaxies, template_colors
from zmill.pdf.grid import Grid

GRID = Grid(0.0, 2.0, 201)
BANDS = ("u", "g", "r", "i", "z")
CONTEXT = ModelContext((PhotometryKind(BANDS, 2, filters={band: f"sdss2010-{band}" for band in BANDS}),), GRID, seed=3)


@cache
def colors() -> sed.Colors:
    return template_colors(
        list(sed.load_filters([CONTEXT.of(PhotometryKind).filters[band] for band in BANDS])), GRID.z_max
    )


def galaxies(n: int, seed: int, error: float = 0.02) -> LabelledBatch:
    """Rows whose colors are those of BPZ's spectra, up to a tenth brighter or fainter in each band than these say."""
    rng = np.random.default_rng(seed)
    z = rng.gamma(4.0, 0.12, n).clip(0.02, 1.9)
    flux = colors().fluxes(z, rng.uniform(0, 6.5, n), rng.exponential(0.1, n).clip(0, 0.4))
    flux = flux / flux[:, [2]] * 10 ** (0.4 * (ZERO_POINT - rng.uniform(18, 21, n)))[:, None]
    flux *= np.exp([0.1, -0.05, 0.0, 0.08, -0.1]) * (1 + error * rng.normal(size=flux.shape))
    none = np.zeros(n, np.int32)
    mag = (ZERO_POINT - 2.5 * np.log10(flux)).astype(np.float32)
    unknown, errors = np.full_like(mag, np.nan), np.full_like(mag, error * MAGNITUDES)
    ebv = rng.uniform(0, 0.1, n).astype(np.float32)
    photometry = Photometry(BANDS, mag, errors, unknown, none, none, none, ebv, np.zeros((n, 0), np.float32), 2)
    return LabelledBatch(photometry, z, np.ones(n))


def test_a_galaxy_without_shift_keeps_its_photometry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDSHIFT", "BRIGHTNESS", "TYPE", "REDDENING"):
        monkeypatch.setattr(module, name, 0.0)
    rows = galaxies(50, 1, error=0.001)
    made = synthetic_galaxies(rows, CONTEXT, 500, 1)
    own = np.abs(made.z[:, None] - rows.z).argmin(1)
    np.testing.assert_allclose(made.z, rows.z[own])
    np.testing.assert_allclose(made.batch.ebv, rows.batch.ebv[own])
    np.testing.assert_allclose(made.batch.mag, rows.batch.mag[own], atol=0.02)


def test_colors_follow_redshift_as_those_of_the_training_rows_do() -> None:
    rows, other = galaxies(1500, 1), galaxies(4000, 2)
    made = synthetic_galaxies(rows, CONTEXT, 4000, 1)
    for low, high in ((0.1, 0.3), (0.3, 0.5), (0.5, 0.8)):
        for band in range(4):
            one, two = (
                (s.batch.mag[:, band] - s.batch.mag[:, band + 1])[(s.z > low) & (s.z < high)] for s in (made, other)
            )
            np.testing.assert_allclose(np.quantile(one, [0.2, 0.5, 0.8]), np.quantile(two, [0.2, 0.5, 0.8]), atol=0.12)


@given(st.integers(0, 1000), st.integers(1, 60))
@settings(max_examples=15, deadline=None)
def test_they_are_complete_and_on_the_grid(seed: int, number: int) -> None:
    rows = galaxies(30, seed)
    made = synthetic_galaxies(rows, CONTEXT, number, seed)
    assert len(made) == len(made.batch) == number
    assert ((made.z >= GRID.z_min) & (made.z <= GRID.z_max)).all()
    assert (made.weight == 1).all()
    assert made.batch.measured.all()
    assert (made.batch.magerr > 0).all()


def test_the_same_seed_makes_the_same_galaxies() -> None:
    one, two, other = (synthetic_galaxies(galaxies(40, 1), CONTEXT, 100, seed) for seed in (1, 1, 2))
    assert one.content_hash == two.content_hash != other.content_hash


def test_rows_are_drawn_in_proportion_to_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REDSHIFT", 0.001)
    rows = galaxies(400, 1)
    near = rows.z < 0.4
    rows = replace(rows, weight=np.select([rows.z > 0.8, near], [0.0, 3.0], 1.0))
    made = synthetic_galaxies(rows, CONTEXT, 20_000, 1)
    assert made.z.max() < 0.82
    expected = 3 * near.sum() / rows.weight.sum()
    assert np.mean(made.z < 0.4) == pytest.approx(expected, abs=0.015)


def test_bands_are_observed_where_the_galaxy_s_own_row_has_them() -> None:
    rows = galaxies(40, 1)
    odd = np.arange(40) % 2
    photometry = replace(rows.batch, unobserved=odd.astype(np.int32), imputed=(8 * (1 - odd)).astype(np.int32))
    made = synthetic_galaxies(replace(rows, batch=photometry), CONTEXT, 1000, 1).batch
    assert set(np.unique(made.unobserved)) == {1, 8}
    assert not made.imputed.any()
    np.testing.assert_array_equal(np.isnan(made.mag), made.unobserved[:, None] & 2 ** np.arange(5) > 0)


def test_what_is_fainter_than_all_detections_is_undetected() -> None:
    rows = galaxies(300, 1)
    faint = rows.batch.mag[:, 0] > np.quantile(rows.batch.mag[:, 0], 0.7)
    mag, magerr, maglim = (getattr(rows.batch, name).copy() for name in ("mag", "magerr", "maglim"))
    # errors of the same flux for all, so that faint ones are lost at one ratio of signal to noise
    flux = 10 ** (0.4 * (ZERO_POINT - mag[:, 0]))
    magerr[:, 0] = MAGNITUDES * flux[~faint].min() / 5 / flux
    mag[faint, 0], magerr[faint, 0], maglim[faint, 0] = np.nan, np.nan, 25.0
    photometry = replace(
        rows.batch, mag=mag, magerr=magerr, maglim=maglim, undetected=faint.astype(np.int32)
    )  # fmt: skip
    made = synthetic_galaxies(replace(rows, batch=photometry), CONTEXT, 3000, 1).batch
    lost = made.undetected == 1
    assert 0.15 < lost.mean() < 0.45
    assert (made.maglim[lost, 0] == 25).all()
    assert np.isnan(made.mag[lost, 0]).all()
    assert (MAGNITUDES / made.magerr[~lost, 0]).min() > 4.5
    assert set(np.unique(made.undetected)) == {0, 1}


def test_errors_are_those_of_rows_as_bright() -> None:
    rows = galaxies(2000, 1)
    magerr = (0.01 * 10 ** (0.2 * (rows.batch.mag - 18))).astype(np.float32)
    rows = replace(rows, batch=replace(rows.batch, magerr=magerr))
    made = synthetic_galaxies(rows, CONTEXT, 2000, 1).batch
    inside = (made.mag[:, 2] > 18.2) & (made.mag[:, 2] < 20.8)
    ratio = made.magerr[inside, 2] / (0.01 * 10 ** (0.2 * (made.mag[inside, 2] - 18)))
    np.testing.assert_allclose(np.median(ratio), 1, atol=0.02)
    assert np.quantile(np.abs(ratio - 1), 0.9) < 0.1


def test_of_unknown_errors_none_are_made_up() -> None:
    rows = galaxies(40, 1)
    rows = replace(rows, batch=replace(rows.batch, magerr=np.full_like(rows.batch.mag, np.nan)))
    made = synthetic_galaxies(rows, CONTEXT, 200, 1).batch
    assert np.isnan(made.magerr).all()
    assert np.isfinite(made.mag).all()
