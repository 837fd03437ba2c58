"""Published networks over stamps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import contract
from models.toy_images import CONTEXT, labelled, without
from zmill.models.image_cnn import ImageCNN, ImageCNNSettings

QUICK = ImageCNN.quick


def test_it_learns() -> None:
    contract.is_accurate("image_cnn", QUICK, 0.02)


def test_rows_on_disk_give_the_same_model(tmp_path: Path) -> None:
    contract.streams("image_cnn", QUICK, tmp_path)


@pytest.mark.parametrize(("architecture", "layers"), [("pasquet", 1), ("inception", 1)])
def test_every_architecture_is_trained(architecture: str, layers: int) -> None:
    settings = {**QUICK, "architecture": architecture, "layers": layers, "epochs": 1}
    model, facts = contract.fitted("image_cnn", settings, labelled(200, 1), labelled(64, 2))
    assert facts["best_epoch"] == 1
    assert model.predict(labelled(3, 3).batch).shape == (3, 81)


def test_rows_without_a_stamp_have_a_density() -> None:
    model, _ = contract.fitted("image_cnn", {**QUICK, "epochs": 1}, labelled(200, 1), labelled(64, 2))
    density = model.predict(without(labelled(3, 3).batch))
    assert (density >= 0).all()
    torch.testing.assert_close(density[0], density[1])


def test_too_many_layers_are_refused_before_any_job() -> None:
    inputs = {kind.name: kind for kind in CONTEXT.inputs}
    fits = ImageCNNSettings.model_validate({"architecture": "sequential", "layers": 2})
    many = ImageCNNSettings.model_validate({"architecture": "sequential", "layers": 9})
    assert ImageCNN.unsuitable(fits, inputs) == ""
    assert "layers: stamps of 16 × 16 pixels are too small for 9" in ImageCNN.unsuitable(many, inputs)
