"""A band that a survey names and has never observed: every type of model learns and predicts without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.contract import CPU, PHOTOMETRIC, QUICK
from models.toy_survey import CONTEXT, GRID, labelled, with_filters
from zmill.inputs.base import LabelledBatch
from zmill.models import registry
from zmill.networks.losses import mean_crps
from zmill.training.evaluate import predict_rows
from zmill.training.trained import fit_and_calibrate, refit

WITH_FILTERS = with_filters("sdss2010-g", "sdss2010-r", "sdss2010-i")


def without_first(rows: LabelledBatch) -> LabelledBatch:
    """The rows of a survey that never looked in its first band, which nothing is filled in for."""
    mag, magerr = (getattr(rows.batch, name).copy() for name in ("mag", "magerr"))
    mag[:, 0] = magerr[:, 0] = np.nan
    never = np.full(len(rows), 1, np.int32)
    return LabelledBatch(replace(rows.batch, mag=mag, magerr=magerr, unobserved=never), rows.z, rows.weight)


@pytest.mark.parametrize("type_", PHOTOMETRIC)
def test_a_band_that_never_exists(type_: str) -> None:
    settings = registry.model_class(type_).Settings.model_validate(QUICK[type_])
    train, valid, calib, test = (without_first(labelled(n, seed)) for seed, n in enumerate((400, 200, 150, 300)))
    trained = fit_and_calibrate(type_, type_, settings, WITH_FILTERS, train, valid, calib, CPU, lambda line: None)
    refit(trained, LabelledBatch.join([train, valid, calib]), lambda line: None)
    density = trained.predict(test.batch)
    torch.testing.assert_close(GRID.integral(density), torch.ones(300), rtol=1e-3, atol=1e-3)
    said = predict_rows(trained, test)
    assert all(np.isfinite(values).all() for values in said.columns.values())
    assert said.columns["ood"].mean() < 0.1
    if type_ not in ("trainz", "template"):  # the template fit knows other galaxies than these
        known = torch.as_tensor(test.z, dtype=torch.float32)
        floor = registry.model_class("trainz")(registry.model_class("trainz").Settings(), CONTEXT)
        floor.refit(train, CPU, lambda line: None)
        assert mean_crps(density, known, GRID) < 0.8 * mean_crps(floor.predict(test.batch), known, GRID)
