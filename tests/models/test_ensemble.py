"""The flagship: the mean of its parts, distilled into one network, saved and repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import contract
import pytest
import torch
from toy_survey import CONTEXT, labelled

from zmill.config import ConfigError, ModelSettings
from zmill.models.features import Fluxes
from zmill.models.registry import check_models

SHAPE = {"width": 48, "waves": 4, "embedding": 2, "lr": 8e-3, "ema": 0.9}
QUICK: dict[str, Any] = {
    "networks": {**SHAPE, "epochs": 12, "members": 2, "blocks": 2, "batch": 128},
    "neighbors": {**SHAPE, "epochs": 12, "members": 1, "dimensions": 8, "candidates": 1000, "batch": 128},
    "distilled": {**SHAPE, "epochs": 2},
}
BRIEF = {name: part | {"epochs": 1} for name, part in QUICK.items()}


@pytest.mark.parametrize("distill", [False, True])
def test_learns_the_toy_relation(distill: bool) -> None:
    contract.is_accurate("ensemble", QUICK | {"distill": distill}, 0.06)


@pytest.mark.parametrize("distill", [False, True])
def test_saved_and_repeatable(tmp_path: Path, distill: bool) -> None:
    contract.is_saved_and_repeatable("ensemble", BRIEF | {"distill": distill}, tmp_path)


def test_scales_by_training_rows_alone() -> None:
    names = ("features.softening", "features.offset", "features.scale")
    contract.scales_by_training_rows_alone("ensemble", BRIEF, names)


def test_rows_with_gaps() -> None:
    contract.predicts_rows_with_gaps("ensemble", BRIEF)


def test_learns_again_from_more_rows() -> None:
    contract.learns_again("ensemble", QUICK)


def test_the_ensemble_is_the_mean_of_its_parts() -> None:
    model, _ = contract.fitted("ensemble", BRIEF | {"distill": False}, labelled(400, 1), labelled(150, 2))
    batch = labelled(50, 3).photometry
    fluxes = Fluxes.of(batch, ())
    expected = 0.5 * (model.networks.densities(fluxes) + model.neighbors.densities(fluxes))
    torch.testing.assert_close(model.predict(batch), expected)


def test_the_distilled_network_answers_as_its_teachers() -> None:
    settings = QUICK | {"distilled": QUICK["distilled"] | {"epochs": 6}}
    model, _ = contract.fitted("ensemble", settings, labelled(1500, 1), labelled(300, 2))
    batch = labelled(500, 3).photometry
    taught = model.predict(batch)
    teacher = model.networks.densities(Fluxes.of(batch, ())) + model.neighbors.densities(Fluxes.of(batch, ()))
    shared = torch.minimum(taught, teacher / 2).sum(1) * CONTEXT.grid.step
    assert float(shared.mean()) > 0.85


def test_only_the_distilled_network_is_saved() -> None:
    model, _ = contract.fitted("ensemble", BRIEF, labelled(400, 1), labelled(150, 2))
    tensors, _ = model.state()
    assert {name.split(".")[0] for name in tensors} == {"features", "network"}


def test_further_inputs_are_given_once() -> None:
    entry = ModelSettings.model_validate({"networks": {"extra": ["ebv"]}})
    with pytest.raises(ConfigError, match="give `extra` once"):
        check_models({"ensemble": entry})


def test_an_unknown_key_of_a_part_is_refused() -> None:
    entry = ModelSettings.model_validate({"neighbors": {"dimension": 3}})
    with pytest.raises(ConfigError, match="did you mean 'dimensions'"):
        check_models({"ensemble": entry})
