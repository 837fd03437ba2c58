"""The fully connected network: learns, is saved, repeats itself, and says when it diverges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models import contract
from models.toy_survey import CONTEXT, GRID, labelled
from zmill.models.fcnn import FCNN, FCNNSettings
from zmill.networks.network import TrainingError
from zmill.pdf.residuals import ResidualKernel

QUICK = {"lr": 3e-3, "epochs": 15, "hidden": [32, 32], "ema": 0.0}


def test_learns_the_toy_relation() -> None:
    contract.is_accurate("fcnn", QUICK, 0.06)


def test_saved_and_repeatable(tmp_path: Path) -> None:
    contract.is_saved_and_repeatable("fcnn", QUICK, tmp_path)


def test_scales_by_training_rows_alone() -> None:
    contract.scales_by_training_rows_alone("fcnn", QUICK, ("offset", "scale", "fill"))


def test_rows_with_missing_bands() -> None:
    contract.predicts_rows_with_missing_bands("fcnn", QUICK)


def test_predicts_with_the_weights_that_were_trained_last() -> None:
    model, _ = contract.fitted("fcnn", QUICK, labelled(300, 1), labelled(100, 2))
    rows = labelled(50, 4).batch
    for number in range(2):
        x, _ = model._inputs_of(rows)
        with torch.inference_mode():
            torch.testing.assert_close(model.loc_scale(rows)[0], model.network(x[None])[0, :, 0], rtol=1e-5, atol=1e-5)
        if number == 0:
            before = model.loc_scale(rows)[0]
            model.refit(labelled(400, 5), torch.device("cpu"), lambda line: None)
    assert not torch.equal(before, model.loc_scale(rows)[0])


def test_keeps_the_best_epoch_and_stops_early() -> None:
    _, facts = contract.fitted("fcnn", QUICK | {"epochs": 200, "patience": 3}, labelled(300, 1), labelled(100, 2))
    scores = [look["score"] for look in facts["history"]]
    assert len(scores) < 200
    assert facts["best_score"] == pytest.approx(min(scores), abs=1e-6)
    assert len(scores) == facts["best_epoch"] + 3


def test_a_loss_that_is_not_finite_stops_with_its_cause() -> None:
    with pytest.raises(TrainingError, match=r"loss became (nan|inf) in epoch \d+ .*learning rate 1e\+18"):
        hasty = FCNNSettings(scaling="none").model_copy(update={"lr": 1e18})  # beyond what the settings allow
        FCNN(hasty, CONTEXT).fit(labelled(300, 1), labelled(100, 2), contract.CPU, lambda line: None)


def test_residual_widths_follow_prediction_and_magnitude() -> None:
    rng = np.random.default_rng(1)
    z_hat, magnitude = rng.uniform(0.1, 1.5, 4000), rng.uniform(18, 25, 4000)
    sigma = np.exp(-4 + 0.5 * z_hat + 0.3 * (magnitude - 21))
    z = z_hat + sigma * (1 + z_hat) * rng.standard_t(3, 4000)
    kernel = ResidualKernel.fit(*(torch.from_numpy(a) for a in (z_hat, magnitude, z)))
    assert kernel.nu == 3.0
    ask = torch.tensor([0.8, 0.8]), torch.tensor([20.0, 23.0])
    peak = kernel(*ask, GRID).amax(1)
    assert float(peak[0] / peak[1]) == pytest.approx(np.exp(0.9), rel=0.15)


def test_few_residuals_give_one_width() -> None:
    z_hat = torch.linspace(0.1, 1.0, 20)
    kernel = ResidualKernel.fit(z_hat, torch.linspace(18, 25, 20), z_hat + 0.01 * torch.sin(37 * z_hat))
    assert (kernel.coefficients[1:] == 0).all()
