"""The convolutional network: the published layers, every optimizer of the published search, linear when it says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import contract
from models.toy_survey import labelled
from zmill.config import ConfigError, ModelSettings
from zmill.models import cnn
from zmill.models.registry import check_models

QUICK = {"epochs": 8, "lr": 3e-3, "activation": "relu"}


def test_layers_are_the_published_ones() -> None:
    network = cnn.Convolution(7, 16, "none")
    shapes = [tuple(parameter.shape) for parameter in network.parameters()]
    assert shapes == [(16, 1, 3), (16,), (1, 16 * 3), (1,)]
    x = torch.randn(1, 5, 7)
    weight, bias, head, last = (parameter.detach() for parameter in network.parameters())
    padded = torch.nn.functional.pad(x[0], (1, 1))
    convolved = torch.einsum("nik,ck->nci", padded.unfold(1, 3, 1), weight[:, 0]) + bias[:, None]
    pooled = convolved[..., :6].unflatten(2, (3, 2)).amax(3)
    torch.testing.assert_close(network(x)[0], pooled.flatten(1) @ head.T + last)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_learns_the_toy_relation_with_every_optimizer(optimizer: str) -> None:
    settings = QUICK | {"optimizer": optimizer, "epochs": 15} | ({"lr": 0.02} if optimizer == "sgd" else {})
    model, _ = contract.fitted("cnn", settings, labelled(800, 1), labelled(200, 2))
    assert type(model.optimizer(list(model.network.parameters()), model.settings)) is cnn.OPTIMIZERS[optimizer]
    test = labelled(300, 3)
    delta = (contract.median(model.predict(test.batch)) - test.z) / (1 + test.z)
    assert abs(delta).mean() < 0.1


def test_a_learning_rate_of_a_millionth_hardly_moves_the_weights() -> None:
    """The published final version, after as many steps as here."""
    _, facts = contract.fitted("cnn", QUICK | {"lr": 1e-6, "epochs": 3}, labelled(300, 1), labelled(100, 2))
    scores = [look["score"] for look in facts["history"]]
    assert scores[-1] > 0.95 * scores[0]


def test_saved_and_repeatable(tmp_path: Path) -> None:
    contract.is_saved_and_repeatable("cnn", QUICK, tmp_path)


def test_scales_by_training_rows_alone() -> None:
    contract.scales_by_training_rows_alone("cnn", QUICK, ("offset", "scale", "fill"))


def test_rows_with_missing_bands() -> None:
    contract.predicts_rows_with_missing_bands("cnn", QUICK)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="'adam', 'sgd' or 'rmsprop'"):
        check_models({"cnn": ModelSettings.model_validate({"optimizer": "lion"})})
