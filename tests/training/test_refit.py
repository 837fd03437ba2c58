"""Learning again from all labelled rows, once validation rows have chosen and calibration rows have corrected."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models import contract
from models.toy_survey import CONTEXT, labelled
from zmill.inputs.base import LabelledBatch
from zmill.models.registry import model_class, types
from zmill.training.trained import fit_and_calibrate, refit

LONGER: dict[str, dict[str, Any]] = {
    "cmnn": {"floor": [0.0, 0.02], "magnitude": 1.0},
    "fcnn": {"lr": 3e-3, "epochs": 30, "hidden": [32, 32], "ema": 0.0},
    "knn": {"k": [5, 11, 21]},
    "resmlp": {
        "epochs": 12,
        "members": 2,
        "width": 48,
        "blocks": 1,
        "frequencies": 4,
        "embedding": 2,
        "lr": 8e-3,
        "ema": 0.9,
    },
}
"""Settings of types that their quick settings leave nothing to choose, or teach too little; others have their quick ones."""
ELSEWHERE = {
    *("cnn", "gat", "ensemble", "nca", "template"),
    *("spectrum_cnn", "spectrum_ensemble", "spectrum_neighbors", "spectrum_resnet", "spectrum_template"),
}
"""Networks like fcnn, and types whose own tests have this test."""


@pytest.mark.parametrize("type_", sorted(set(types()) - ELSEWHERE))
def test_refit_learns_from_more_rows(type_: str) -> None:
    contract.refit_learns(type_, LONGER.get(type_, contract.QUICK[type_]))


def test_what_was_calibrated_stays_and_the_domain_is_that_of_all_rows() -> None:
    cls = model_class("knn")
    train, valid, calib = labelled(300, 1), labelled(150, 2), labelled(400, 3)
    settings = cls.Settings.model_validate({"k": [5]})
    trained = fit_and_calibrate("knn", "knn", settings, CONTEXT, train, valid, calib, contract.CPU, lambda line: None)
    calibration, detector = trained.calibration, trained.detector
    lines: list[str] = []
    refit(trained, LabelledBatch.join([train, valid, calib]), lines.append)
    assert trained.calibration == calibration
    assert not torch.equal(trained.detector.centers, detector.centers)
    assert trained.facts["rows"]["refit"] == 850
    assert len(trained.model.state()[0]["z"]) == 850
    assert "850" in lines[0]
