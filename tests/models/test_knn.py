"""Nearest neighbors: equal to scikit-learn's regression, K and width chosen on validation, saved and found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import MinMaxScaler

from models import contract
from models.toy_survey import GRID, labelled
from zmill.config import ConfigError, ModelSettings
from zmill.inputs.base import LabelledBatch
from zmill.models import knn
from zmill.models.registry import check_models


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_mean_equals_scikit_learn(weights: str) -> None:
    train, test = labelled(800, 1), labelled(200, 2)
    settings = {"k": 15, "scaling": "minmax", "weights": weights}
    model, facts = contract.fitted("knn", settings, train, labelled(100, 3))
    scaler = MinMaxScaler().fit(train.batch.mag)
    peer = KNeighborsRegressor(15, weights=weights).fit(scaler.transform(train.batch.mag), train.z)
    expected = peer.predict(scaler.transform(test.batch.mag))
    density = model.predict(test.batch).double().numpy()
    np.testing.assert_allclose(np.trapezoid(density * GRID.z, GRID.z, axis=1), expected, atol=0.01)
    assert facts["k"] == 15


def test_k_is_chosen_on_validation_and_the_curve_is_kept() -> None:
    model, facts = contract.fitted("knn", {"k": [3, 30, 300], "choose": "mse"}, labelled(1000, 1), labelled(300, 2))
    assert [point["k"] for point in facts["curve"]] == [3, 30, 300]
    assert facts["k"] == min(facts["curve"], key=lambda point: point["mse"])["k"]
    assert model.state()[1] == {"k": facts["k"], "width": facts["width"]}


def test_k_beyond_the_training_rows_is_left_out() -> None:
    _, facts = contract.fitted("knn", {"k": [500, 900]}, labelled(60, 1), labelled(60, 2))
    assert facts["k"] == 59


def test_weights_of_rows_count() -> None:
    train = labelled(600, 1)
    low = train.z < np.median(train.z)
    weighted = LabelledBatch(train.batch, train.z, np.where(low, 100.0, 1.0))
    test = labelled(200, 2).batch
    plain, _ = contract.fitted("knn", {"k": 31}, train, labelled(100, 3))
    heavy, _ = contract.fitted("knn", {"k": 31}, weighted, labelled(100, 3))
    assert contract.median(heavy.predict(test)).mean() < contract.median(plain.predict(test)).mean()


def test_a_row_that_is_a_training_row() -> None:
    train = labelled(300, 1)
    model, _ = contract.fitted("knn", {"k": 5, "weights": "distance"}, train, labelled(100, 2))
    delta = contract.median(model.predict(train.batch)) - train.z
    assert np.abs(delta).max() < 2 * GRID.step


def test_tree_finds_what_comparing_with_every_row_finds() -> None:
    """Three columns and their differences, so that two directions are flat; queries beside that plane, too."""
    random = np.random.default_rng(1)
    three = random.normal(size=(500, 3)).astype(np.float32)
    points = np.concatenate([three, three[:, :1] - three[:, 1:2], three[:, 1:2] - three[:, 2:]], axis=1)
    queries = points[:40] + random.normal(0, 0.3, (40, 5)).astype(np.float32)
    distance, neighbor = knn.Tree(torch.from_numpy(points)).query(torch.from_numpy(queries), 7)
    every = np.linalg.norm(queries[:, None].astype(float) - points, axis=2)
    np.testing.assert_array_equal(neighbor.numpy(), every.argsort(1)[:, :7])
    np.testing.assert_allclose(distance.numpy(), np.sort(every, 1)[:, :7], rtol=1e-5)


def test_tree_of_rows_that_are_all_alike() -> None:
    distance, neighbor = knn.Tree(torch.ones(60, 3)).query(torch.full((2, 3), 2.0), 5)
    torch.testing.assert_close(distance, torch.full((2, 5), 3**0.5))
    assert neighbor.shape == (2, 5)


def test_kernel_rows_are_densities() -> None:
    rows = knn.kernel(GRID, 0.02, torch.device("cpu"))
    torch.testing.assert_close(GRID.integral(rows), torch.ones(GRID.size))


def test_redshifts_off_the_grid_take_no_part() -> None:
    train = labelled(300, 1)
    beyond = LabelledBatch(train.batch, np.where(np.arange(300) < 50, 7.0, train.z), train.weight)
    model, _ = contract.fitted("knn", {"k": 9}, beyond, labelled(100, 2))
    assert len(model.state()[0]["z"]) == 250


def test_learns_the_toy_relation() -> None:
    contract.is_accurate("knn", {}, 0.06)
    contract.is_accurate("knn", {"scaling": "robust", "weights": "distance", "colors": True}, 0.06)


def test_saved_and_repeatable(tmp_path: Path) -> None:
    contract.is_saved_and_repeatable("knn", {"k": [5, 15]}, tmp_path)


def test_scales_by_training_rows_alone() -> None:
    contract.scales_by_training_rows_alone("knn", {"k": 9}, ("offset", "scale", "fill", "inputs"))


def test_rows_with_missing_bands() -> None:
    contract.predicts_rows_with_missing_bands("knn", {"k": 9})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"color": True}, "did you mean 'colors'"),
        ({"k": 0}, "expected at least 1"),
        ({"k": []}, "at least one number"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_models({"knn": ModelSettings.model_validate(settings)})
