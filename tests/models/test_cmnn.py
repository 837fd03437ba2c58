"""Color-matched neighbors: the distance of the paper, its threshold, and missing colors that count for nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from models import contract
from models.toy_survey import GRID, labelled
from zmill.config import ConfigError, ModelSettings
from zmill.inputs.base import LabelledBatch
from zmill.inputs.photometry.features import Fluxes
from zmill.models.registry import check_models

PUBLISHED = {"weights": "uniform", "floor": 0.0, "magnitude": 0.0, "min_neighbors": 1, "max_neighbors": 10_000}
QUICK = {"floor": 0.02, "magnitude": 1.0}


def test_neighbors_are_those_of_the_formula() -> None:
    train, test = labelled(500, 1), labelled(40, 2)
    model, _ = contract.fitted("cmnn", PUBLISHED, train, labelled(100, 3))
    histogram = model._histogram(Fluxes.of(test.batch, ())).double().numpy()
    colors = [np.diff(rows.batch.mag.astype(np.float64), axis=1) for rows in (train, test)]
    distance = ((colors[1][:, None] - colors[0]) ** 2 / (2 * 0.05**2)).sum(2)
    near = distance <= chi2.ppf(0.68, 2)
    for row in range(40):
        members = near[row] if near[row].any() else distance[row] == distance[row].min()
        assert (histogram[row] * GRID.z).sum() == pytest.approx(train.z[members].mean(), abs=2e-3)


def test_a_color_that_is_missing_takes_no_part() -> None:
    """Neither in the distance nor in its degrees of freedom."""
    train, test = labelled(500, 1), labelled(40, 2)
    gone = replace(test.batch, unobserved=np.full(40, 4, np.int32))
    strange = replace(gone, mag=gone.mag + np.array([0, 0, 5], np.float32))
    model, _ = contract.fitted("cmnn", PUBLISHED, train, labelled(100, 3))
    assert torch.equal(model._histogram(Fluxes.of(gone, ())), model._histogram(Fluxes.of(strange, ())))
    gr = [rows.batch.mag[:, 0].astype(np.float64) - rows.batch.mag[:, 1] for rows in (train, test)]
    near = (gr[1][:, None] - gr[0]) ** 2 / (2 * 0.05**2) <= chi2.ppf(0.68, 1)
    histogram = model._histogram(Fluxes.of(gone, ())).double().numpy()
    for row in np.flatnonzero(near.any(1)):
        assert (histogram[row] * GRID.z).sum() == pytest.approx(train.z[near[row]].mean(), abs=2e-3)


def test_too_few_neighbors_are_filled_up() -> None:
    model, _ = contract.fitted("cmnn", PUBLISHED | {"min_neighbors": 25}, labelled(300, 1), labelled(100, 2))
    far = labelled(5, 3).batch
    far = replace(far, mag=far.mag + np.array([9, 0, -9], np.float32))
    histogram = model._histogram(Fluxes.of(far, ()))
    assert ((histogram > 0).sum(1) >= 5).all()
    torch.testing.assert_close(histogram.sum(1), torch.ones(5))


def test_rows_may_be_left_out_of_the_neighbors() -> None:
    train = labelled(300, 1)
    model, _ = contract.fitted("cmnn", QUICK, train, labelled(100, 2))
    fluxes = Fluxes.of(train.batch, ())
    own = torch.arange(300)[:, None]
    at = torch.searchsorted(torch.from_numpy(GRID.z), torch.from_numpy(train.z).clamp(GRID.z_min, GRID.z_max - 1e-6))
    with_itself, without = (model.densities(fluxes, left)[own[:, 0], at].mean() for left in (own * 0 - 1, own))
    assert float(without) < float(with_itself)
    torch.testing.assert_close(model.densities(fluxes, own * 0 - 1), model.densities(fluxes))


def test_weights_of_rows_count() -> None:
    train, test = labelled(600, 1), labelled(200, 2).batch
    heavy = LabelledBatch(train.batch, train.z, np.where(train.z < np.median(train.z), 100.0, 1.0))
    medians = [
        contract.median(contract.fitted("cmnn", QUICK, rows, labelled(100, 3))[0].predict(test)).mean()
        for rows in (heavy, train)
    ]
    assert medians[0] < medians[1]


def test_learns_the_toy_relation() -> None:
    contract.is_accurate("cmnn", QUICK, 0.06)
    contract.is_accurate("cmnn", QUICK | {"weights": "inverse"}, 0.06)


def test_floor_magnitude_and_width_are_the_best_on_validation() -> None:
    settings = {"floor": [0.0, 0.05], "magnitude": [0.0, 1.0]}
    model, facts = contract.fitted("cmnn", settings, labelled(300, 1), labelled(100, 2))
    best = min(facts["curve"], key=lambda point: point["crps"])
    assert (model.floor, model.magnitude, model.width) == (best["floor"], best["magnitude"], best["width"])
    assert {point["floor"] for point in facts["curve"]} == {0.0, 0.05}


def test_saved_and_repeatable(tmp_path: Path) -> None:
    contract.is_saved_and_repeatable("cmnn", QUICK, tmp_path)


def test_scales_by_training_rows_alone() -> None:
    contract.scales_by_training_rows_alone("cmnn", QUICK, ("center", "colors", "z"))


def test_rows_with_missing_bands() -> None:
    contract.predicts_rows_with_missing_bands("cmnn", QUICK)


def test_wrong_settings_are_refused() -> None:
    for settings, message in (({"floor": []}, "at least one number"), ({"ppf": 1.0}, "below 1")):
        with pytest.raises(ConfigError, match=message):
            check_models({"cmnn": ModelSettings.model_validate(settings)})
