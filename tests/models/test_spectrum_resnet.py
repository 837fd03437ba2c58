"""The flagship for spectra: redshifts as shifts in ln λ, masks, augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import contract
from models.toy_spectra import CONTEXT, GRID, WAVELENGTHS, labelled
from zmill.inputs.spectrum.grid import WavelengthGrid
from zmill.models.spectrum_resnet import SpectrumResNet, SpectrumResNetSettings, channels, evenly_in_log
from zmill.networks.spectral import Correlation, SpectralNetwork

QUICK = SpectrumResNet.quick


def test_it_learns() -> None:
    contract.is_accurate("spectrum_resnet", QUICK, 0.004)


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


def test_a_shift_of_the_spectrum_is_a_shift_of_the_scores() -> None:
    """Of those of the correlations; edges see other pixels."""
    step = WAVELENGTHS.log_step
    assert step is not None
    z = (1 + GRID.z_min) * torch.exp(step * torch.arange(60)) - 1
    network = SpectralNetwork(len(WAVELENGTHS), step, z, 8, 2)
    for layer in (network.fixed[2].weight, network.fixed[2].bias):
        torch.nn.init.zeros_(layer)
    x = torch.zeros(1, 2, 3, len(WAVELENGTHS))
    x[0, 0, :, 50:60] = torch.randn(3, 10)
    x[0, 1, :, 57:67] = x[0, 0, :, 50:60]
    # Without zeros at the edges, which features of the blocks see.
    for module in (network.stem, *(layer for block in network.blocks for layer in (block.first, block.second))):
        torch.nn.init.zeros_(module.bias)
    scores = network(x)[0]
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
    flux, error, moved = model._augmented(line, torch.ones(200, 120), z, torch.Generator().manual_seed(1))
    by = ((1 + moved).log() - (1 + z).log()) / WAVELENGTHS.log_step
    assert by.abs().max() > 5
    torch.testing.assert_close(flux.argmax(1).float() - 60, by, rtol=0, atol=0.01)
    assert torch.equal(torch.isfinite(error).sum(1), (120 - by.round().abs()).long())
    assert ((moved >= GRID.z_min) & (moved <= GRID.z_max)).all()


def test_a_linear_grid_is_rebinned_evenly_in_log() -> None:
    linear = WavelengthGrid("linear", start=4000, step=20, pixels=100)
    found = evenly_in_log(linear)
    assert found.log_step and abs(found.wavelength[0] - 4000) < 1e-6 and found.wavelength[-1] <= 5980
    assert 90 < len(found) < 110


def test_channels_of_bad_pixels_are_zero_and_extremes_are_clipped() -> None:
    found = channels(torch.tensor([[1.0, 1e9, 5.0]]), torch.tensor([[0.5, 1e-9, torch.inf]]))
    assert found.shape == (1, 3, 3)
    torch.testing.assert_close(found[0, :, 0], torch.tensor([1.0, 0.2, 1.0]))
    assert found[0, :2, 1].tolist() == [20.0, 20.0]
    assert found[0, :, 2].tolist() == [0.0, 0.0, 0.0]
