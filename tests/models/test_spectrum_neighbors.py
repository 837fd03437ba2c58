"""Neighbors of spectra: redshifts, distances, and which training spectra they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models import contract
from models.toy_spectra import CONTEXT, GRID, labelled
from zmill.inputs.base import LabelledBatch
from zmill.models.spectrum_neighbors import SpectrumNeighbors
from zmill.training import store
from zmill.training.trained import ModelError, fit_and_calibrate

QUICK = {"network": {**SpectrumNeighbors.quick["network"], "epochs": 6}}
TYPE = "spectrum_neighbors"


@pytest.fixture(scope="module")
def model() -> SpectrumNeighbors:
    found, _ = contract.fitted(TYPE, QUICK, labelled(1200, 1), labelled(300, 2))
    assert isinstance(found, SpectrumNeighbors)
    return found


def strange(n: int) -> LabelledBatch:
    """Spectra unlike those of the survey: rising steeply, without lines."""
    rows = labelled(n, 7)
    flux = np.linspace(0.01, 30, rows.batch.flux.shape[1]) ** 3 + 0 * rows.batch.flux
    return LabelledBatch(rows.batch.with_pixels(flux.astype(np.float32), rows.batch.ivar), rows.z, rows.weight)


def test_it_learns(model: SpectrumNeighbors) -> None:
    test = labelled(500, 3)
    density = model.predict(test.batch)
    torch.testing.assert_close(GRID.integral(density), torch.ones(500), rtol=1e-3, atol=1e-3)
    delta = (contract.median(density, GRID) - test.z) / (1 + test.z)
    assert 1.4826 * np.median(np.abs(delta)) < 0.03


def test_it_is_saved_and_repeatable(tmp_path: Path) -> None:
    contract.is_saved_and_repeatable(TYPE, {"network": {**QUICK["network"], "epochs": 2}}, tmp_path)


def test_a_refit_learns() -> None:
    contract.refit_learns(TYPE, QUICK)


def test_the_nearest_to_a_training_spectrum_is_itself(model: SpectrumNeighbors) -> None:
    train = labelled(1200, 1)
    some = train.batch[[5, 900, 3]]
    found = model.nearest(some, 4)
    assert found.distance.shape == found.z.shape == found.identities.shape == (3, 4)
    assert found.distance[:, 0].max() < 1e-2 and found.distance[:, 1].min() > 1e-2
    np.testing.assert_allclose(found.z[:, 0], train.z[[5, 900, 3]], rtol=1e-6)
    assert found.identities[:, 0].tolist() == some.identities().tolist()


def test_spectra_unlike_all_others_are_far(model: SpectrumNeighbors) -> None:
    usual, far = model.far(labelled(500, 4).batch), model.far(strange(20).batch)
    assert usual.mean() < 0.06
    assert far.all()


def test_far_rows_are_out_of_distribution_and_have_a_share_of_n_of_z() -> None:
    settings = SpectrumNeighbors.Settings.model_validate(QUICK)
    rows = labelled(500, 1), labelled(200, 2), labelled(200, 3)
    trained = fit_and_calibrate("near", TYPE, settings, CONTEXT, *rows, contract.CPU, lambda line: None)
    found = trained.predict_all(strange(10).batch)
    assert found.ood.all() and not found.own.any()
    assert not trained.predict_all(labelled(50, 5).batch).ood.all()


def test_a_batch_is_not_taken_for_an_earlier_one(model: SpectrumNeighbors) -> None:
    first, second = labelled(30, 4).batch, labelled(30, 5).batch
    one = model.predict(first)
    other = model.predict(second)
    model.far(first)
    assert torch.equal(model.predict(second), other)
    assert torch.equal(model.predict(first), one)


def test_an_index_of_other_rows_is_refused(model: SpectrumNeighbors, tmp_path: Path) -> None:
    tensors, facts = model.state()
    with pytest.raises(ValueError, match="an index of 1,200 neighbors with 1,199 redshifts"):
        SpectrumNeighbors(model.settings, CONTEXT).restore({**tensors, "z": tensors["z"][1:]}, facts)
    settings = SpectrumNeighbors.Settings.model_validate({"network": {**QUICK["network"], "epochs": 1}, "k": 5})
    rows = labelled(300, 1), labelled(100, 2), labelled(100, 3)
    trained = fit_and_calibrate("near", TYPE, settings, CONTEXT, *rows, contract.CPU, lambda line: None)
    store.save(tmp_path, trained)
    monkey = trained.model.z
    trained.model.z = monkey[1:]
    store.save(tmp_path, trained)
    with pytest.raises(ModelError, match="neighbors with"):
        store.load(tmp_path)
