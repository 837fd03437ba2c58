"""The forest: leaves and means of scikit-learn's own, densities from the galaxies in the leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor

from models import contract
from models.toy_survey import CONTEXT, GRID, labelled
from zmill.config import ConfigError, ModelSettings
from zmill.models.registry import check_models

QUICK = {"trees": 15}


@pytest.mark.parametrize(("kind", "peer"), [("extra", ExtraTreesRegressor), ("random", RandomForestRegressor)])
def test_leaves_are_those_of_scikit_learn(kind: str, peer: type) -> None:
    train, test = labelled(400, 1), labelled(100, 2)
    model, _ = contract.fitted("forest", {"trees": 7, "kind": kind}, train, labelled(100, 3))
    forest = peer(7, min_samples_leaf=3, max_features=0.5, random_state=CONTEXT.seed)
    forest.fit(model.features(train.batch).numpy(), np.log1p(train.z), sample_weight=train.weight)
    x = model.features(test.batch)
    expected = forest.apply(x.numpy()) + model.roots.numpy()
    np.testing.assert_array_equal(model._leaves(x).numpy(), expected)


def test_weights_are_those_of_a_quantile_regression_forest() -> None:
    """Meinshausen 2006, eq. 4: the mean over trees of 1 / (rows in the leaf) for the rows in it."""
    train, test = labelled(300, 1), labelled(30, 2)
    model, _ = contract.fitted("forest", {"trees": 9}, train, labelled(100, 3))
    trained = model._leaves(model.features(train.batch))
    leaves = model._leaves(model.features(test.batch))
    same = (leaves[:, None] == trained).double()
    weight = (same / same.sum(1, keepdim=True)).mean(2)
    histogram = model._histogram(test.batch).double()
    torch.testing.assert_close(histogram.sum(1), torch.ones(30).double())
    mean = histogram @ torch.from_numpy(GRID.z)
    torch.testing.assert_close(mean, weight @ torch.from_numpy(train.z), atol=1e-4, rtol=0)


def test_learns_the_toy_relation() -> None:
    contract.is_accurate("forest", QUICK, 0.06)
    contract.is_accurate("forest", QUICK | {"kind": "random"}, 0.06)


def test_saved_and_repeatable(tmp_path: Path) -> None:
    contract.is_saved_and_repeatable("forest", QUICK, tmp_path)


def test_scales_by_training_rows_alone() -> None:
    contract.scales_by_training_rows_alone("forest", QUICK, ("softening", "center", "threshold", "members"))


def test_rows_with_missing_bands() -> None:
    contract.predicts_rows_with_missing_bands("forest", QUICK)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="'extra' or 'random'"):
        check_models({"forest": ModelSettings.model_validate({"kind": "oak"})})
