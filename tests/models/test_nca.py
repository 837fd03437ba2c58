"""Neighbors under a learned metric: learn, weigh, leave out, are saved and repeat themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import contract
from models.toy_survey import GRID, labelled
from zmill.inputs.base import LabelledBatch
from zmill.inputs.photometry.features import Fluxes
from zmill.models.nca import near

QUICK: dict[str, Any] = {
    **{"epochs": 12, "members": 2, "width": 48, "frequencies": 4, "embedding": 2, "dimensions": 8},
    **{"candidates": 1000, "batch": 128, "lr": 8e-3, "ema": 0.9},
}


def test_learns_the_toy_relation() -> None:
    contract.is_accurate("nca", QUICK, 0.06)


def test_saved_and_repeatable(tmp_path: Path) -> None:
    contract.is_saved_and_repeatable("nca", QUICK | {"epochs": 2}, tmp_path)


def test_scales_by_training_rows_alone() -> None:
    names = ("features.softening", "features.offset", "features.scale", "neighbors")
    contract.scales_by_training_rows_alone("nca", QUICK | {"epochs": 2}, names)


def test_rows_with_missing_bands() -> None:
    contract.predicts_rows_with_missing_bands("nca", QUICK | {"epochs": 2})


def test_refit_learns_from_more_rows() -> None:
    contract.refit_learns("nca", QUICK | {"epochs": 8})


def test_near_orders_by_distance() -> None:
    one, other = torch.randn(5, 3), torch.randn(20, 3)
    assert torch.equal(near(one, other).argsort(1, descending=True), torch.cdist(one, other).argsort(1))


def test_a_neighbor_table_keeps_some_of_the_rows() -> None:
    model, _ = contract.fitted("nca", QUICK | {"epochs": 2, "neighbor_rows": 100}, labelled(400, 1), labelled(100, 2))
    assert len(model.state()[0]["neighbors"]) == 100
    assert torch.isfinite(model.predict(labelled(30, 3).batch)).all()


def test_a_row_can_be_kept_from_being_its_own_neighbor() -> None:
    """Its redshift, wrong here, is then no part of the answer."""
    rows = labelled(400, 1)
    wrong = rows.z.copy()
    wrong[7] = 1.9
    train = LabelledBatch(rows.batch, wrong, rows.weight)
    model, _ = contract.fitted("nca", QUICK, train, labelled(100, 2))
    fluxes = Fluxes.of(rows.batch[7:8], ())
    place = torch.searchsorted(model.rows, torch.tensor([[7]]))
    around = slice(185, 196)
    with_itself = float(model.densities(fluxes)[0, around].sum() * GRID.step)
    without = float(model.densities(fluxes, place)[0, around].sum() * GRID.step)
    assert without < 0.01 < with_itself
    assert torch.equal(model.densities(fluxes, torch.tensor([[-1]])), model.densities(fluxes))


def test_weights_of_training_rows_count() -> None:
    rows = labelled(600, 1)
    heavy = np.where(rows.z > np.median(rows.z), 20.0, 0.05)
    plain, _ = contract.fitted("nca", QUICK | {"epochs": 2}, rows, labelled(100, 2))
    weighed, _ = contract.fitted(
        "nca", QUICK | {"epochs": 2}, LabelledBatch(rows.batch, rows.z, heavy), labelled(100, 2)
    )
    batch = labelled(200, 3).batch
    means = [float((model.predict(batch) @ GRID.tensor()).mean() * GRID.step) for model in (plain, weighed)]
    assert means[1] > means[0] + 0.1
