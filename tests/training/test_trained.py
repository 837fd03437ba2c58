"""A model comes out of training calibrated; too few rows are refused with what to do."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.toy_survey import CONTEXT, GRID, labelled
from zmill.inputs.base import LabelledBatch
from zmill.inputs.photometry.batch import Photometry
from zmill.models import registry, trainz
from zmill.pdf import calibration_fit
from zmill.training import trained as trained_module
from zmill.training.trained import ModelError, TrainedModel, fit_and_calibrate

CPU = torch.device("cpu")


def fitted(
    train: LabelledBatch, calib: LabelledBatch, log: list[str] | None = None, valid: LabelledBatch | None = None
) -> TrainedModel:
    lines = log if log is not None else []
    settings = registry.model_class("trainz").Settings()
    valid = valid or labelled(150, 2)
    return fit_and_calibrate("floor", "trainz", settings, CONTEXT, train, valid, calib, CPU, lines.append)


def test_densities_are_calibrated_on_the_calibration_rows() -> None:
    train, calib, test = labelled(3000, 1), labelled(3000, 3), labelled(3000, 4)
    off = LabelledBatch(train.batch, train.z * 0.8, train.weight)
    trained = fitted(off, calib)
    density = trained.predict(test.batch)
    assert torch.allclose(GRID.integral(density), torch.ones(3000), atol=1e-4)
    plain = trained.model.predict(test.batch)
    measured = trained.facts["calibration"]
    assert measured["after"]["crps"] < measured["before"]["crps"]
    assert measured["after"]["pit_ks"] < 0.5 * measured["before"]["pit_ks"]
    expected = (GRID.tensor() * density).sum(1).div(density.sum(1)).mean().item()
    before = (GRID.tensor() * plain).sum(1).div(plain.sum(1)).mean().item()
    assert abs(expected - test.z.mean()) < 0.3 * abs(before - test.z.mean())


def test_calibration_and_intervals_are_learned_from_the_calibration_rows_alone() -> None:
    train, calib = labelled(3000, 1), labelled(600, 3)
    off = LabelledBatch(train.batch, train.z * 0.8, train.weight)
    trained, again = fitted(off, calib), fitted(off, calib, valid=labelled(300, 9))
    assert trained.calibration.remap
    assert trained.calibration == again.calibration
    assert trained.conformal == again.conformal
    other = fitted(off, labelled(600, 4))
    assert trained.calibration != other.calibration
    assert trained.conformal != other.conformal


def test_intervals_have_levels_by_the_reference_magnitude() -> None:
    trained = fitted(labelled(3000, 1), labelled(1500, 3))
    test = labelled(4000, 4)
    bins = trained.interval_bins(test.batch)
    assert trained.conformal.bins == 11
    magnitude = test.batch.mag[:, 1]
    assert np.array_equal(bins.numpy(), np.searchsorted(np.float32(trained.conformal.edges), magnitude, side="right"))


def test_the_facts_and_the_log_say_what_was_done() -> None:
    log: list[str] = []
    trained = fitted(labelled(300, 1), labelled(200, 3), log)
    assert trained.facts["rows"] == {"train": 300, "valid": 150, "calib": 200}
    assert trained.facts["train_seconds"] >= 0
    assert any("fitting trainz on 300 rows" in line for line in log)
    for scores in (trained.facts["calibration"][when] for when in ("before", "after")):
        assert sum(scores["pit_histogram"]) == 150 and scores["crps"] > 0
    assert trained.ood(labelled(20, 5).batch).dtype == np.bool_


def test_densities_of_few_rows_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_fit, "MAX_ROWS", 300)
    monkeypatch.setattr(calibration_fit, "CHUNK", 200)
    monkeypatch.setattr(trained_module, "BATCH", 250)
    plain, alive, most = trainz.TrainZ.predict, 0, 0

    def predict(self: trainz.TrainZ, batch: Photometry) -> torch.Tensor:
        nonlocal alive, most
        found = plain(self, batch)
        alive += len(found)
        most = max(most, alive)

        def gone(rows: int) -> None:
            nonlocal alive
            alive -= rows

        weakref.finalize(found, gone, len(found))
        return found

    monkeypatch.setattr(trainz.TrainZ, "predict", predict)
    fitted(labelled(300, 1), labelled(5000, 2), valid=labelled(5000, 3))
    assert most <= 3 * 300


def test_inputs_that_do_not_vary_is_refused() -> None:
    train = labelled(300, 1)
    still = replace(train, batch=replace(train.batch, mag=np.full((300, 3), 22.5, np.float32)))
    with pytest.raises(ModelError, match=r"the inputs of the 300 training rows do not vary \(mag_g is 22.5, "):
        fitted(still, labelled(100, 3))
    empty = replace(train, batch=replace(train.batch, mag=np.full((300, 3), np.nan, np.float32)))
    with pytest.raises(ModelError, match="nothing is measured in any row"):
        fitted(empty, labelled(100, 3))


def test_too_few_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainz.TrainZ, "min_train", 100)
    with pytest.raises(ModelError, match=r"needs at least 100 training rows .* found 99, 150 and 20"):
        fitted(labelled(99, 1), labelled(20, 3))
    with pytest.raises(ModelError, match="found 100, 150 and 0"):
        fitted(labelled(100, 1), labelled(0, 3))


def test_redshifts_beyond_the_grid_are_refused_if_too_few_are_left_and_otherwise_logged() -> None:
    train, calib = labelled(300, 1), labelled(50, 3)
    far = LabelledBatch(train.batch, train.z + GRID.z_max, train.weight)
    with pytest.raises(
        ModelError, match=r"redshift_grid goes from .* of 300 training, .* only 0, 150 and 50 are on it"
    ):
        fitted(far, calib)
    log: list[str] = []
    train.z[:7] = GRID.z_max + 1
    fitted(train, calib, log)
    assert any("7 training redshifts are beyond redshift_grid" in line for line in log)
