"""Residual networks over spectra, averaged and distilled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import contract
from models.toy_spectra import CONTEXT, GRID, labelled
from zmill.inputs.spectrum.batch import Spectra
from zmill.inputs.spectrum.grid import WavelengthGrid
from zmill.models.spectrum_ensemble import CoarseSpectra, SpectrumEnsemble, SpectrumEnsembleSettings, _blended

QUICK: dict[str, Any] = SpectrumEnsemble.quick
BRIEF = {
    **QUICK,
    "networks": {**QUICK["networks"], "epochs": 1},
    "predictions": 500,
    "distilled": {"epochs": 1, "width": 32},
}


def test_it_learns() -> None:
    contract.is_accurate("spectrum_ensemble", QUICK, 0.02)


@pytest.mark.parametrize("distill", [False, True])
def test_it_is_saved_and_repeatable(tmp_path: Path, distill: bool) -> None:
    contract.is_saved_and_repeatable("spectrum_ensemble", BRIEF | {"distill": distill}, tmp_path)


def test_a_refit_learns() -> None:
    settings = {**QUICK, "networks": {**QUICK["networks"], "epochs": 4}, "members": 1}
    contract.refit_learns("spectrum_ensemble", settings)


def test_the_average_is_that_of_networks_of_different_seeds() -> None:
    model, facts = contract.fitted("spectrum_ensemble", BRIEF | {"distill": False}, labelled(300, 1), labelled(100, 2))
    assert isinstance(model, SpectrumEnsemble)
    batch = labelled(20, 3).batch
    one, two = (member.predict(batch) for member in model.members)
    assert not torch.equal(one, two)
    torch.testing.assert_close(model.predict(batch), (one + two) / 2)
    assert set(facts) == {"network 1", "network 2"}


def test_facts_compare_the_student_with_its_teachers() -> None:
    lines: list[str] = []
    model = SpectrumEnsemble(SpectrumEnsembleSettings.model_validate(BRIEF), CONTEXT)
    facts = model.fit(labelled(300, 1), labelled(100, 2), contract.CPU, lines.append)
    assert facts["distilled"]["teachers_score"] > 0
    assert any("that of the average of the networks" in line for line in lines)


def test_inputs_of_the_student_do_not_depend_on_brightness_but_for_one() -> None:
    rows = labelled(50, 1).batch
    features = CoarseSpectra(len(CONTEXT.inputs[0].grid))
    features.fit(rows)
    bright = rows.with_pixels(rows.flux * 10, rows.ivar / 100)
    one, two = features(rows), features(bright)
    torch.testing.assert_close(one[:, : features.bins], two[:, : features.bins], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(two[:, features.bins] - one[:, features.bins], (1 / features.spread[features.bins]).expand(50), rtol=1e-3, atol=1e-3)  # fmt: skip
    torch.testing.assert_close(one[:, -1], two[:, -1], rtol=1e-3, atol=1e-3)
    nothing = rows.with_pixels(np.full_like(rows.flux, np.nan), np.zeros_like(rows.ivar))
    assert torch.isfinite(features(nothing)).all()


def test_long_spectra_are_averaged_over_good_pixels() -> None:
    features = CoarseSpectra(1000)
    assert features.bins == 192
    flux = np.ones((3, 1000), np.float32)
    flux[1, 10:13] = 50
    ivar = np.ones_like(flux)
    ivar[1, 10:13] = 0

    found = features(Spectra.of(flux, ivar, WavelengthGrid("linear", start=4000, step=2, pixels=1000)))
    torch.testing.assert_close(found[:, :192], torch.ones(3, 192), rtol=1e-4, atol=1e-4)


def test_blends_keep_the_statistics_of_noise() -> None:
    rng = np.random.default_rng(1)
    rows = labelled(400, 1, noise=0.1).batch
    clean = rows.with_pixels(np.full_like(rows.flux, 3), np.full_like(rows.ivar, 100))
    noisy = [clean.noisier(1.0, rng).with_pixels(clean.flux + 0.1 * rng.standard_normal(clean.flux.shape, np.float32), clean.ivar) for _ in range(2)]  # fmt: skip
    fraction = rng.uniform(0, 0.5, (400, 1))
    found = _blended(*noisy, fraction, 0.5 * rng.standard_normal(rows.flux.shape))
    pull = (found.flux - 3) * np.sqrt(found.ivar)
    assert 0.95 < pull.std() < 1.05
    masked = noisy[1].with_pixels(noisy[1].flux, np.where(np.arange(120) < 5, 0, noisy[1].ivar).astype(np.float32))
    assert (_blended(noisy[0], masked, fraction, np.zeros(rows.flux.shape)).ivar[:, :5] == 0).all()
    assert GRID.size == 121
