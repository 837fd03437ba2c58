"""The flagship for spectra: redshifts as shifts in ln λ, masks, augmentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import contract
from models.toy_spectra import CONTEXT, GRID, WAVELENGTHS, labelled
from zmill.models.spectrum_resnet import Pixels, SpectrumResNet, SpectrumResNetSettings, channels
from zmill.networks.spectral import Correlation, SpectralNetwork, fast_length

QUICK = SpectrumResNet.quick


def test_it_learns() -> None:
    contract.is_accurate("spectrum_resnet", QUICK, 0.004)


def test_it_learns_with_the_divergence_of_distributions() -> None:
    contract.is_accurate("spectrum_resnet", {**QUICK, "loss": "jensen_shannon", "entropy": 0.1}, 0.006)


def test_it_finds_finer_redshifts_than_its_labels() -> None:
    """Labels in 12 bins of 0.05: a redshift that is uniform in its bin has a median deviation of 0.0125."""
    settings = {**QUICK, "loss": "jensen_shannon", "entropy": 0.1, "label_bins": 12}
    model, facts = contract.fitted("spectrum_resnet", settings, labelled(1500, 1), labelled(300, 2))
    test = labelled(500, 3)
    error = np.abs(contract.median(model.predict(test.batch), GRID) - test.z)
    assert np.median(error) < 0.006
    assert facts["best_score"] > 0.1, "validated with labels as coarse as those of training rows"


def test_errors_of_labels_widen_densities() -> None:
    rows, valid, test = labelled(800, 1), labelled(200, 2), labelled(100, 3)
    settings = {**QUICK, "epochs": 6, "crps": 0.0}
    found = []
    for error in (None, np.full(len(rows), 0.05)):
        model, _ = contract.fitted("spectrum_resnet", settings, replace(rows, z_err=error), valid)
        density = model.predict(test.batch)
        mean = (density * GRID.tensor()).sum(1) * GRID.step
        found.append(float((((density * (GRID.tensor() - mean[:, None]) ** 2).sum(1)) * GRID.step).sqrt().median()))
    assert found[1] > 1.5 * found[0] and found[1] > 0.04


def test_it_is_saved_and_repeatable(tmp_path: Path) -> None:
    contract.is_saved_and_repeatable("spectrum_resnet", {**QUICK, "epochs": 2}, tmp_path)


def test_a_refit_learns() -> None:
    contract.refit_learns("spectrum_resnet", {**QUICK, "epochs": 6})


@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 100))
@settings(deadline=None, max_examples=20)
def test_a_correlation_is_the_product_with_the_shifted_template(pixels: int, shifts: int, seed: int) -> None:
    torch.manual_seed(seed)
    head, x = Correlation(2, pixels, shifts), torch.randn(3, 2, pixels)
    found = head(x)
    for number in range(shifts):  # the larger the redshift, the shorter the rest-frame wavelength of the first pixel
        first = shifts - 1 - number
        product = (x * head.template[:, first : first + pixels]).sum((1, 2))
        torch.testing.assert_close(found[:, number], product, rtol=1e-4, atol=1e-4)


def test_a_finer_correlation_has_the_same_values_and_finds_shifts_of_fractions_of_a_pixel() -> None:
    torch.manual_seed(1)
    plain, finer = Correlation(2, 40, 25), Correlation(2, 40, 25, 8)
    finer.load_state_dict(plain.state_dict())
    x = torch.randn(3, 2, 40)
    torch.testing.assert_close(finer(x)[:, ::8], plain(x), rtol=1e-3, atol=1e-4)

    def line(center: float, pixels: int) -> torch.Tensor:
        return torch.exp(-0.5 * ((torch.arange(pixels) - center) / 1.5) ** 2)

    finder = Correlation(1, 40, 25, 8)
    with torch.no_grad():
        finder.template.copy_(line(32, 64)[None])
    for shift in (0.0, 0.25, 3.125, 7.5):
        found = finder(line(20 + shift, 40)[None, None])[0].argmax() / 8
        assert abs(float(found) - (12 + shift)) < 0.13


def test_a_shift_of_the_spectrum_is_a_shift_of_the_scores() -> None:
    """Of those of the correlations; edges see other pixels."""
    step = WAVELENGTHS.log_step
    assert step is not None
    z = (1 + GRID.z_min) * torch.exp(step * torch.arange(60)) - 1
    network = SpectralNetwork(len(WAVELENGTHS), step, z, 8, 2)
    for layer in (network.fixed[2].weight, network.fixed[2].bias):
        torch.nn.init.zeros_(layer)
    x = torch.zeros(2, 3, len(WAVELENGTHS))
    x[0, :, 50:60] = torch.randn(3, 10)
    x[1, :, 57:67] = x[0, :, 50:60]
    # Without zeros at the edges, which features of the blocks see.
    for module in (network.stem, *(layer for block in network.blocks for layer in (block.first, block.second))):
        torch.nn.init.zeros_(module.bias)
    scores = network(x, torch.zeros(2))
    torch.testing.assert_close(scores[1, 8:50], scores[0, 1:43], rtol=1e-3, atol=1e-4)


def test_masked_pixels_do_not_count() -> None:
    model, _ = contract.fitted("spectrum_resnet", {**QUICK, "epochs": 1}, labelled(300, 1), labelled(100, 2))
    batch = labelled(5, 3).batch
    strange = batch.with_pixels(np.where(batch.ivar > 0, batch.flux, np.float32(99)), batch.ivar)
    assert torch.equal(model.predict(batch), model.predict(strange))
    nothing = batch.with_pixels(np.full_like(batch.flux, np.nan), np.zeros_like(batch.ivar))
    assert torch.isfinite(model.predict(nothing)).all()


def test_augmentation_moves_redshift_and_spectrum_together() -> None:
    settings = SpectrumResNetSettings.model_validate({**QUICK, "noise": 0, "masked": 0, "shift": 0.1})
    model = SpectrumResNet(settings, CONTEXT)
    line = torch.zeros(200, 120)
    z = torch.full((200,), 0.3)
    line[:, 60] = 1.0
    spectra = Pixels(line, torch.ones(200, 120), torch.zeros(200))
    (flux, error, _), moved = model._augmented(spectra, z, torch.Generator().manual_seed(1))
    by = ((1 + moved).log() - (1 + z).log()) / WAVELENGTHS.log_step
    assert by.abs().max() > 5
    torch.testing.assert_close(flux.argmax(1).float() - 60, by, rtol=0, atol=0.01)
    assert torch.equal(torch.isfinite(error).sum(1), (120 - by.round().abs()).long())
    assert ((moved >= GRID.z_min) & (moved <= GRID.z_max)).all()


def test_blends_are_of_spectra_at_the_same_redshift_and_keep_the_statistics_of_noise() -> None:
    model = SpectrumResNet(SpectrumResNetSettings.model_validate({**QUICK, "blend": 0.5}), CONTEXT)
    generator, n = torch.Generator().manual_seed(1), 2000
    one, two = (Pixels(1 + 0.1 * torch.randn(n, 120), torch.full((n, 120), 0.1), torch.zeros(n)) for _ in range(2))
    one.error[:, :3], two.error[:, 5:8] = torch.inf, torch.inf
    z = torch.full((n,), 0.3)
    far = z + torch.where(torch.arange(n) % 2 == 0, 0.0, 0.1)
    found = model._blended(one, two, z, far, generator)
    same = (found.flux == one.flux).all(1)
    assert same[1::2].all() and 0.4 < float(same[::2].float().mean()) < 0.6
    mixed = ~same
    assert torch.isinf(found.error[:, :3]).all() and torch.isinf(found.error[mixed][:, 5:8]).all()
    assert torch.isfinite(found.error[same][:, 5:8]).all() and torch.isfinite(found.flux).all()
    pull = ((found.flux - 1) / found.error)[mixed][:, 10:]
    assert 0.97 < float(pull.std()) < 1.03


@given(st.integers(1, 5000))
@settings(deadline=None, max_examples=50)
def test_lengths_of_transforms_have_small_factors(least: int) -> None:
    found = fast_length(least)
    assert least <= found <= max(1.2 * least, least + 2)
    for prime in (2, 3, 5):
        while found % prime == 0:
            found //= prime
    assert found == 1


def test_channels_of_bad_pixels_are_zero_and_extremes_are_clipped() -> None:
    found = channels(torch.tensor([[1.0, 1e9, 5.0]]), torch.tensor([[0.5, 1e-9, torch.inf]]))
    assert found.shape == (1, 3, 3)
    torch.testing.assert_close(found[0, :, 0], torch.tensor([1.0, np.arcsinh(1 / 0.51) / 2, 1.0]).float())
    assert found[0, 0, 1] == 20.0
    torch.testing.assert_close(found[0, 1, 1], torch.tensor(2000.0).asinh() / 2, rtol=1e-4, atol=0)
    assert found[0, :, 2].tolist() == [0.0, 0.0, 0.0]
