"""A spectrum and magnitudes of one row: better together, and each alone where the other is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import contract
from models.toy_both import CONTEXT, GRID, labelled
from zmill.config import ConfigError, parse
from zmill.inputs.base import Joint, LabelledBatch
from zmill.models.spectrum_photometry import SpectrumPhotometry, SpectrumPhotometrySettings
from zmill.networks.losses import mean_crps

TYPE = "spectrum_photometry"
QUICK = {
    "spectrum": {**SpectrumPhotometry.quick["spectrum"], "epochs": 10, "batch": 32},
    "photometry": {**SpectrumPhotometry.quick["photometry"], "synthetic_galaxies": 0},
}
NOISE = 1.5
"""Spectra that alone often have the wrong redshift."""


@pytest.fixture(scope="module")
def model() -> SpectrumPhotometry:
    found, facts = contract.fitted(TYPE, QUICK, labelled(1000, 1, NOISE), labelled(300, 2, NOISE))
    assert isinstance(found, SpectrumPhotometry)
    assert set(facts["exponents"]) == {"photometry", "spectrum", "n_of_z"}
    return found


def without(rows: LabelledBatch, name: str) -> Joint:
    """The rows without their spectrum, or with no band observed."""
    kinds = dict(rows.batch.kinds)
    if name == "spectrum":
        kinds[name] = kinds[name].with_pixels(np.zeros_like(kinds[name].flux), np.zeros_like(kinds[name].ivar))
    else:
        nothing = np.full(len(rows), 7, np.int32)
        kinds[name] = replace(kinds[name], mag=np.full_like(kinds[name].mag, np.nan), unobserved=nothing)
    return Joint(kinds)


def test_both_are_better_than_either(model: SpectrumPhotometry) -> None:
    test = labelled(500, 3, NOISE)
    z = torch.as_tensor(test.z, dtype=torch.float32)
    density = model.predict(test.batch)
    torch.testing.assert_close(GRID.integral(density), torch.ones(500), rtol=1e-3, atol=1e-3)
    alone = [mean_crps(network.predict(test.batch.kinds[name]), z, GRID) for name, network in model.networks.items()]
    assert mean_crps(density, z, GRID) < 0.95 * min(alone)
    assert all(0.05 < model.exponents[name] < 3 for name in ("photometry", "spectrum"))


@pytest.mark.parametrize(("missing", "other"), [("spectrum", "photometry"), ("photometry", "spectrum")])
def test_a_row_that_lacks_one_has_the_density_of_the_other(model: SpectrumPhotometry, missing: str, other: str) -> None:
    rows = labelled(40, 4, NOISE)
    batch = without(rows, missing)
    expected = model.networks[other].predict(rows.batch.kinds[other])
    torch.testing.assert_close(model.predict(batch), expected, rtol=1e-2, atol=1e-2)
    half = Joint.join([batch[:20], rows.batch[20:]])
    torch.testing.assert_close(model.predict(half)[:20], expected[:20], rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(model.predict(half)[20:], model.predict(rows.batch)[20:], rtol=1e-2, atol=1e-2)


def test_logarithms_are_those_of_the_density(model: SpectrumPhotometry) -> None:
    batch = labelled(30, 5, NOISE).batch
    logs = model.log_density(batch)
    torch.testing.assert_close(GRID.normalize((logs - logs.amax(1, keepdim=True)).exp()), model.predict(batch))


def test_rows_without_one_input_train_the_network_of_the_other() -> None:
    train = labelled(400, 1)
    lacking = without(train.rows(np.arange(150)), "spectrum")
    mixed = replace(train, batch=Joint.join([lacking, train.batch[150:]]))
    quick = {
        **QUICK,
        "spectrum": {**QUICK["spectrum"], "epochs": 1},
        "photometry": {**QUICK["photometry"], "epochs": 1},
    }
    model, _ = contract.fitted(TYPE, quick, mixed, labelled(100, 2))
    assert torch.isfinite(model.predict(mixed.batch)).all()


def test_it_is_saved_and_repeatable(tmp_path: Path) -> None:
    quick = {
        **QUICK,
        "spectrum": {**QUICK["spectrum"], "epochs": 1},
        "photometry": {**QUICK["photometry"], "epochs": 2},
    }
    contract.is_saved_and_repeatable(TYPE, quick, tmp_path)


def test_a_refit_keeps_the_exponents(model: SpectrumPhotometry) -> None:
    again = SpectrumPhotometry(model.settings, CONTEXT)
    again.restore(*model.state())
    batch = labelled(20, 6, NOISE).batch
    assert torch.equal(again.predict(batch), model.predict(batch))
    again.refit(labelled(300, 7, NOISE), contract.CPU, lambda line: None)
    assert again.exponents == model.exponents
    assert not torch.equal(again.predict(batch), model.predict(batch))


def test_extra_inputs_are_given_once() -> None:
    with pytest.raises(ConfigError, match="give `extra` next to `photometry`"):
        parse(SpectrumPhotometrySettings, {"photometry": {"extra": ["ebv"]}}, "config.yaml: models.both")
