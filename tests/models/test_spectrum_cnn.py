"""The published convolutional networks over spectra."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import contract
from models.toy_spectra import CONTEXT, GRID, labelled
from zmill.config import ConfigError, ModelSettings
from zmill.models.registry import check_models, check_suitable
from zmill.models.spectrum_cnn import (
    SpectrumCNN,
    SpectrumCNNSettings,
    SpectrumNetwork,
)
from zmill.networks.losses import bin_of, class_densities

QUICK = SpectrumCNN.quick
EUCLID = {
    "convolutions": [{"filters": 16, "kernel": 8}] * 3,
    **{
        "padding": "same",
        "pool": 3,
        "batch_norm": True,
        "dense": [512],
        "dense_activation": "none",
        "scaling": "level",
    },
    **{"dropout": 0.5, "dense_l2": 0.2, "optimizer": "adam", "lr": 1e-4, "batch": 32, "epochs": 20},
}
"""The network published for Euclid, but for its head."""
CLASSES = {**QUICK, "classes": 60, "loss": "cross_entropy", "scaling": "level", "batch_norm": True}

DIVERGENCE = {**CLASSES, "loss": "jensen_shannon", "entropy": 0.05}


def test_the_network_of_gaia_has_as_many_parameters_as_published() -> None:
    network = SpectrumNetwork(186, 1, SpectrumCNNSettings())
    assert sum(parameter.numel() for parameter in network.parameters()) == 699_073
    assert network(torch.zeros(3, 186)).shape == (3, 1)


def test_the_network_of_euclid_has_the_published_layers() -> None:
    settings = SpectrumCNNSettings.model_validate({**EUCLID, "classes": 800, "loss": "cross_entropy"})
    network = SpectrumNetwork(1780, 800, settings)
    # 1780 -> 889 -> 444 -> 221 pixels of 16 filters
    assert network.dense[1].weight.shape == (512, 16 * 221)
    assert network(torch.zeros(2, 1780)).shape == (2, 800)


@pytest.mark.parametrize("settings", [QUICK, CLASSES, DIVERGENCE], ids=["redshift", "classes", "divergence"])
def test_it_learns(settings: dict) -> None:
    contract.is_accurate("spectrum_cnn", settings, 0.03)


@pytest.mark.parametrize("settings", [QUICK, CLASSES], ids=["redshift", "classes"])
def test_it_is_saved_and_repeatable(settings: dict, tmp_path: Path) -> None:
    contract.is_saved_and_repeatable("spectrum_cnn", {**settings, "epochs": 2}, tmp_path)


def test_a_refit_learns() -> None:
    contract.refit_learns("spectrum_cnn", CLASSES)


def test_scaling_is_fitted_on_training_rows() -> None:
    train, valid = labelled(300, 1), labelled(100, 2)
    strange = replace(valid, batch=replace(valid.batch, flux=valid.batch.flux + np.float32(3)))
    states = [
        contract.fitted("spectrum_cnn", {**QUICK, "epochs": 1}, train, rows)[0].state()[0] for rows in (valid, strange)
    ]
    for name in ("offset", "scale"):
        assert torch.equal(states[0][name], states[1][name])


def test_a_spectrum_without_good_pixels_has_a_density() -> None:
    model, _ = contract.fitted("spectrum_cnn", {**CLASSES, "epochs": 1}, labelled(300, 1), labelled(100, 2))
    batch = labelled(4, 3).batch
    density = model.predict(batch.with_pixels(np.full_like(batch.flux, np.nan), np.zeros_like(batch.ivar)))
    assert torch.isfinite(density).all()
    torch.testing.assert_close(GRID.integral(density), torch.ones(4))


def test_densities_of_classes_have_the_mass_of_their_bins() -> None:
    classes = 40
    density = class_densities(GRID, classes)
    z = torch.linspace(0.0001, 0.5999, 997)
    number = bin_of(z, GRID.z_min, GRID.z_max, classes)
    assert ((number >= 0) & (number < classes)).all()
    centers = (number + 0.5) * 0.6 / classes
    assert ((centers - z).abs() <= 0.5 * 0.6 / classes + 1e-6).all()
    torch.testing.assert_close(GRID.integral(density), torch.ones(classes), rtol=1e-5, atol=1e-5)
    mean = (density * GRID.tensor()).sum(1) * GRID.step
    torch.testing.assert_close(mean[1:-1], (torch.arange(classes) + 0.5)[1:-1] * 0.6 / classes, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 80}, "`loss: jensen_shannon` go with `classes`"),
        ({"loss": "cross_entropy"}, "`loss: cross_entropy` and `loss: jensen_shannon` go with `classes`"),
        ({**CLASSES, "entropy": 0.1}, "`entropy` goes with `loss: jensen_shannon`"),
        ({"convolutions": [{"filters": 8, "kernel": 0}]}, "kernel"),
        ({"convolutions": [{"filters": 8, "kernal": 3}]}, "kernal"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_models({"spectrum_cnn": ModelSettings.model_validate(settings)})


def test_a_spectrum_too_short_for_the_convolutions_is_refused() -> None:
    settings = SpectrumCNNSettings.model_validate({"convolutions": [{"filters": 4, "kernel": 100}] * 3})
    with pytest.raises(ValueError, match=r"convolutions: number 2 \(kernel 100.*is given 10 pixels"):
        SpectrumCNN(settings, CONTEXT)


def test_it_is_refused_before_any_job() -> None:
    settings = ModelSettings.model_validate(
        {"type": "spectrum_cnn", "convolutions": [{"filters": 4, "kernel": 100}] * 3}
    )
    with pytest.raises(ConfigError, match=r"models\.gaia: convolutions: number 2 .* too few"):
        check_suitable(check_models({"gaia": settings}), {kind.name: kind for kind in CONTEXT.inputs})
