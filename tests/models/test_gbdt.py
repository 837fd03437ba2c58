"""Boosted trees: a series of cosines that finds densities, saved as LightGBM's own text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models import contract
from models.toy_survey import GRID, labelled
from zmill.config import ConfigError, ModelSettings
from zmill.inputs.base import LabelledBatch
from zmill.models import gbdt
from zmill.models.registry import check_models

QUICK = {"bases": 12, "rounds": 40, "lr": 0.1, "leaves": 8}


def test_learns_the_toy_relation() -> None:
    contract.is_accurate("gbdt", QUICK | {"bases": 20}, 0.06)


def test_saved_and_repeatable(tmp_path: Path) -> None:
    contract.is_saved_and_repeatable("gbdt", QUICK, tmp_path)


def test_scales_by_training_rows_alone() -> None:
    contract.scales_by_training_rows_alone("gbdt", QUICK, ("softening", "center"))


def test_rows_with_missing_bands() -> None:
    contract.predicts_rows_with_missing_bands("gbdt", QUICK)


def test_the_cosines_are_orthonormal() -> None:
    u = np.linspace(0, 1, 20_001)
    z = np.exp(np.log1p(GRID.z_min) + u * (np.log1p(GRID.z_max) - np.log1p(GRID.z_min))) - 1
    waves = gbdt.basis(GRID, z, 12)
    products = np.trapezoid(waves[:, :, None] * waves[:, None, :], u, axis=0)
    np.testing.assert_allclose(products, np.eye(12), atol=1e-3)


def test_bump_and_sharpening_are_the_best_on_validation() -> None:
    model, facts = contract.fitted("gbdt", QUICK, labelled(400, 1), labelled(150, 2))
    best = min(facts["curve"], key=lambda point: point["cde_loss"])
    assert (model.bump, model.sharpen) == (best["bump"], best["sharpen"])
    assert len(facts["curve"]) == len(gbdt.BUMPS) * len(gbdt.SHARPEN)
    plain = next(p for p in facts["curve"] if (p["bump"], p["sharpen"]) == (0.0, 1.0))
    assert best["cde_loss"] < plain["cde_loss"]


def test_weights_of_rows_count() -> None:
    train, test = labelled(600, 1), labelled(200, 2).batch
    heavy = LabelledBatch(train.batch, train.z, np.where(train.z < np.median(train.z), 100.0, 1.0))
    medians = [
        contract.median(contract.fitted("gbdt", QUICK, rows, labelled(100, 3))[0].predict(test)).mean()
        for rows in (heavy, train)
    ]
    assert medians[0] < medians[1]


def test_a_density_that_is_nowhere_positive_becomes_flat() -> None:
    model, _ = contract.fitted("gbdt", QUICK, labelled(300, 1), labelled(100, 2))
    shaped = model._shaped(torch.zeros(1, QUICK["bases"]), 0.1, 2.0)
    torch.testing.assert_close(shaped, torch.full((1, GRID.size), 0.5))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'leaves'"):
        check_models({"gbdt": ModelSettings.model_validate({"leafs": 4})})
