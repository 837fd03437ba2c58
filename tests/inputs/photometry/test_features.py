"""Features have no NaN, imputed bands are not observed, and fitted numbers come from training rows alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.toy_survey import BANDS, labelled, photometry
from zmill.config import ConfigError
from zmill.inputs.photometry import scaling
from zmill.inputs.photometry.batch import ZERO_POINT, Photometry, mask_of
from zmill.inputs.photometry.extra import check_extra
from zmill.inputs.photometry.features import Columns, Fluxes, Luptitudes
from zmill.models.knn import KNNSettings


def with_missing_bands(seed: int, n: int = 60) -> Photometry:
    """Rows with undetected (with and without a limit), unobserved and imputed bands and unknown errors."""
    rng = np.random.default_rng(seed)
    batch = labelled(n, seed).batch
    state = rng.integers(0, 6, (n, len(BANDS)))
    undetected, unobserved, imputed = (state == 1) | (state == 2), state == 3, state == 4
    mag = np.where(undetected | unobserved, np.nan, batch.mag).astype(np.float32)
    return replace(
        batch,
        mag=mag,
        magerr=np.where(state == 0, batch.magerr, np.nan).astype(np.float32),
        maglim=np.where(state == 1, 27.0, np.nan).astype(np.float32),
        undetected=mask_of(undetected),
        unobserved=mask_of(unobserved),
        imputed=mask_of(imputed),
        ebv=np.where(rng.random(n) < 0.5, 0.05, np.nan).astype(np.float32),
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 40))
def test_no_nan_leaves(seed: int, n: int) -> None:
    train, batch = with_missing_bands(seed + 1), with_missing_bands(seed, n)
    columns = Columns.fit(train, ("ebv",), colors=True)
    luptitudes = Luptitudes(len(BANDS), 1)
    luptitudes.fit(Fluxes.of(train, ("ebv",)))
    assert columns(batch).shape == (n, len(BANDS) + 1 + len(BANDS) - 1)
    assert torch.isfinite(columns(batch)).all()
    inputs = luptitudes(Fluxes.of(batch, ("ebv",)))
    assert inputs.shape == (n, luptitudes.size)
    assert torch.isfinite(inputs).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 40), extra=st.sampled_from([(), ("ebv",)]), colors=st.booleans())
def test_scaled_columns_are_the_columns_scaled(seed: int, n: int, extra: tuple[str, ...], colors: bool) -> None:
    train, batch = with_missing_bands(seed + 1), with_missing_bands(seed, n)
    columns = Columns.fit(train, extra, colors)
    scaler = scaling.fit("standard", columns(train))
    inputs, magnitude = columns.scaled(batch, scaler, reference=2)
    torch.testing.assert_close(inputs, scaler(columns(batch)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(magnitude, columns(batch)[:, 2], rtol=0, atol=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 40), extra=st.sampled_from([(), ("ebv",)]))
def test_the_compiled_pass_gives_the_same_inputs(seed: int, n: int, extra: tuple[str, ...]) -> None:
    luptitudes = Luptitudes(len(BANDS), len(extra))
    luptitudes.fit(Fluxes.of(with_missing_bands(seed + 1), extra))
    batch = with_missing_bands(seed, n)
    torch.testing.assert_close(luptitudes.of(batch, extra), luptitudes(Fluxes.of(batch, extra)), rtol=0, atol=2e-5)


def test_strange_magnitudes_leave_no_nan() -> None:
    luptitudes = Luptitudes(len(BANDS), 0)
    luptitudes.fit(Fluxes.of(labelled(50, 1).batch, ()))
    for strange in (np.inf, -np.inf, 1e30, -1e30, 99.0, -99.0, 0.0):
        batch = photometry(np.full((20, len(BANDS)), strange))
        batch = replace(batch, magerr=np.full_like(batch.mag, strange), maglim=np.full_like(batch.mag, strange))
        for undetected in (0, 7):
            rows = replace(batch, undetected=np.full(20, undetected, np.int32))
            assert torch.isfinite(luptitudes.of(rows, ())).all()


def test_a_row_with_nothing_at_all_is_finite() -> None:
    train = labelled(50, 1).batch
    nothing = replace(photometry(np.full((2, 3), np.nan)), unobserved=np.full(2, 7, np.int32))
    luptitudes = Luptitudes(3, 0)
    luptitudes.fit(Fluxes.of(train, ()))
    assert torch.isfinite(luptitudes(Fluxes.of(nothing, ()))).all()
    assert torch.isfinite(Columns.fit(train, (), True)(nothing)).all()


def test_a_survey_without_errors_and_with_an_empty_band() -> None:
    batch = labelled(80, 1).batch
    mag = batch.mag.copy()
    mag[:, 0] = np.nan
    batch = replace(batch, mag=mag, magerr=np.full_like(mag, np.nan), unobserved=np.full(80, 1, np.int32))
    luptitudes = Luptitudes(3, 0)
    luptitudes.fit(Fluxes.of(batch, ()))
    inputs = luptitudes(Fluxes.of(batch, ()))
    assert torch.isfinite(inputs).all()
    assert inputs[:, 1].std() > 0.5


def test_an_imputed_value_is_no_observation() -> None:
    train = labelled(80, 1).batch
    luptitudes = Luptitudes(3, 0)
    luptitudes.fit(Fluxes.of(train, ()))
    missing = replace(train, unobserved=np.full(80, 2, np.int32))
    filled = replace(missing, imputed=np.full(80, 2, np.int32), mag=train.mag + np.float32([0, 1, 0]))
    assert torch.equal(luptitudes(Fluxes.of(missing, ())), luptitudes(Fluxes.of(filled, ())))


def test_luptitudes_grow_with_flux_and_are_magnitudes_when_bright() -> None:
    mag = np.linspace(18, 30, 50)[:, None] + np.zeros((1, 3))
    batch = replace(photometry(mag), magerr=(mag * 0 + 0.05).astype(np.float32))
    luptitudes = Luptitudes(3, 0)
    luptitudes.fit(Fluxes.of(batch, ()))
    inputs = luptitudes(Fluxes.of(batch, ()))[:, 0]
    assert (inputs.diff() < 0).all()
    bright = inputs[:10].diff() / inputs[:10].diff().mean()
    assert torch.allclose(bright, torch.ones(9), atol=0.01)


def test_noise_has_the_size_of_the_errors_and_leaves_non_detections_alone() -> None:
    batch = labelled(4000, 1).batch
    batch = replace(batch, undetected=np.full(4000, 4, np.int32), maglim=np.full_like(batch.mag, 26.0))
    fluxes = Fluxes.of(batch, ())
    drawn = fluxes.resampled(0.5, torch.Generator().manual_seed(1))
    pull = ((drawn.flux - fluxes.flux) / fluxes.error)[:, :2]
    assert abs(float(pull.std()) - 0.5) < 0.02
    assert abs(float(pull.mean())) < 0.02
    assert torch.equal(drawn.flux[:, 2], torch.zeros(4000))


def test_dropped_bands_look_unobserved_or_undetected_to_a_usual_limit() -> None:
    train = with_missing_bands(1, 6000)
    fluxes = Fluxes.of(train, ())
    limits = fluxes.limits()
    assert torch.isfinite(limits).any()
    dropped = fluxes.dropped(0.5, limits, torch.Generator().manual_seed(1))
    seen, measured = float(fluxes.observed.float().mean()), float(train.measured.mean())
    unseen = fluxes.observed & ~dropped.observed
    failed = dropped.undetected & ~fluxes.undetected
    assert float(unseen.float().mean()) == pytest.approx(0.5 / 4 * 2 / 3 * seen, abs=0.01)
    assert float(failed.float().mean()) == pytest.approx(0.5 / 4 / 3 * measured, abs=0.01)
    maglim = np.where(failed, np.float32(ZERO_POINT) - 2.5 * limits.log10().numpy(), train.maglim)
    undetected = dropped.undetected.numpy()
    by_survey = replace(
        train,
        mag=np.where(dropped.observed & ~dropped.undetected, train.mag, np.float32(np.nan)),
        maglim=maglim.astype(np.float32),
        undetected=mask_of(undetected),
        unobserved=train.unobserved | mask_of(unseen.numpy()),
    )
    luptitudes = Luptitudes(3, 0)
    luptitudes.fit(fluxes)
    torch.testing.assert_close(luptitudes(dropped), luptitudes(Fluxes.of(by_survey, ())), rtol=1e-4, atol=1e-4)


def test_an_unknown_input_is_refused_with_the_nearest() -> None:
    assert check_extra(KNNSettings(extra=("ebv", "size_r")), ("size_r",), "knn") == ("size_r",)
    with pytest.raises(ConfigError, match=r"models: knn: extra: 'sizer' .* did you mean 'size_r'\?"):
        check_extra(KNNSettings(extra=("sizer",)), ("size_r", "class"), "knn")


def test_a_blend_lies_between_the_spectra_and_keeps_the_light() -> None:
    fluxes = Fluxes.of(labelled(500, 1).batch, ())
    others = fluxes.rows(torch.arange(499, -1, -1))
    blend = fluxes.blended(others, 0.5, torch.Generator().manual_seed(1))
    torch.testing.assert_close(blend.flux.sum(1), fluxes.flux.sum(1), rtol=1e-4, atol=1e-3)
    share = [f.flux / f.flux.sum(1, keepdim=True) for f in (fluxes, others, blend)]
    assert (share[2] >= torch.minimum(share[0], share[1]) - 1e-5).all()
    assert (share[2] <= torch.maximum(share[0], share[1]) + 1e-5).all()


def test_a_blend_takes_nothing_from_bands_that_one_of_both_lacks() -> None:
    batch = labelled(100, 1).batch
    without = replace(batch, unobserved=np.full(100, 1, np.int32))
    blend = Fluxes.of(batch, ()).blended(Fluxes.of(without, ()), 0.5, torch.Generator().manual_seed(1))
    assert torch.equal(blend.flux[:, 0], Fluxes.of(batch, ()).flux[:, 0])
    assert torch.isfinite(blend.flux).all()
