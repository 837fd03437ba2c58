"""Densities of rows with little photometry: n(z), fitted prior weights, and intervals with the stated coverage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.toy_survey import BANDS, GRID, labelled, photometry
from zmill.inputs.base import FULL, LabelledBatch
from zmill.inputs.photometry.batch import MASKS, Photometry
from zmill.inputs.photometry.missing_bands import BandRemoval, MissingPattern
from zmill.pdf import conformal, points
from zmill.pdf.histogram import n_of_z
from zmill.training import prior

NONE = BandRemoval(np.full(3, np.nan, np.float32), None)


def n_of(train: LabelledBatch) -> torch.Tensor:
    return n_of_z(train.z, train.weight, GRID)


def certain(batch: Photometry) -> torch.Tensor:
    """Sure of z = 1 to 0.02, whatever it is shown."""
    return GRID.normalize(torch.exp(-0.5 * ((GRID.tensor() - 1.0) / 0.02) ** 2).expand(len(batch), -1))


def honest(batch: Photometry) -> torch.Tensor:
    """g - r is z to 0.1, where both are there; r alone tells nothing and is given what is known of all rows."""
    color = torch.as_tensor(batch.mag[:, 0] - batch.mag[:, 1])
    sharp = torch.exp(-0.5 * ((GRID.tensor() - color.nan_to_num()[:, None]) / 0.072) ** 2)
    return GRID.normalize(torch.where(color.isfinite()[:, None], sharp, n_of(labelled(3000, 1))))


def test_n_of_z_is_weighted_and_leaves_out_what_is_beyond_the_grid() -> None:
    rows = LabelledBatch(photometry(np.zeros((4, 3))), np.array([0.5, 1.0, 1.5, 7.0]), np.array([1.0, 2.0, 1.0, 50.0]))
    density = n_of_z(rows.z, rows.weight, GRID)
    assert float(GRID.integral(density[None])) == pytest.approx(1)
    found = points.summarize(density[None], GRID)
    assert float(found["z_mean"]) == pytest.approx(1.0, abs=1e-4)
    assert float(found["z_mode"]) == pytest.approx(1.0, abs=GRID.step)
    assert float(density[50] / density[100]) == pytest.approx(0.5)
    beyond = replace(rows, z=np.full(4, 9.0))
    torch.testing.assert_close(n_of_z(beyond.z, beyond.weight, GRID), torch.full((201,), 0.5))


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 70))
@settings(max_examples=40, deadline=None)
def test_the_only_band_is_found_as_the_definition_says(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    batch = photometry(np.where(rng.random((rows, 3)) < 0.3, np.nan, 22.0))
    masks = {name: (rng.integers(0, 8, rows) & rng.integers(0, 8, rows)).astype(np.int32) for name in MASKS}
    batch = replace(batch, **masks)
    measured = batch.measured
    count = measured.sum(1)
    expected = np.where(count == 0, 3, np.where(count == 1, measured.argmax(1), FULL))
    np.testing.assert_array_equal(batch.only_band, expected)


def test_kinds() -> None:
    only, far = np.array([-1, -1, 0, 2, 3, 3], np.int32), np.array([False, True, False, True, False, True])
    assert prior.kinds_of(only, far, 3).tolist() == [-1, 3, 0, 2, 4, 4]
    one = Photometry.from_arrow(pa.table({"mag_r": pa.array([22, 23, None], pa.float32())}), ("r",)).information()
    assert prior.kinds_of(one, np.array([False, True, False]), 1).tolist() == [-1, 1, 2], (
        "one band is all of this survey"
    )


def test_a_model_that_is_sure_of_what_it_cannot_know_is_given_the_n_of_z_until_its_intervals_hold() -> None:
    train, calib, test = labelled(3000, 1), labelled(1000, 2), labelled(2000, 3)
    far = np.arange(1000) % 5 == 0
    found = prior.fit(certain, GRID, train, calib, far, NONE)
    assert min(found.weights) > 0.9
    for band in range(3):
        lost = NONE.apply(test.batch, MissingPattern("", tuple(b for b in range(3) if b != band)))
        kinds = torch.as_tensor(found.kinds(lost, np.zeros(len(test), bool)))
        assert (kinds == band).all()
        density = found.mixed(certain(lost), kinds)
        torch.testing.assert_close(GRID.integral(density), torch.ones(len(test)))
        for coverage, held in covered(density, found.levels()[kinds], test.z).items():
            assert min(held) > coverage - 0.04, (band, coverage)


def test_a_model_that_knows_what_it_does_not_know_is_left_alone() -> None:
    found = prior.fit(honest, GRID, labelled(3000, 1), labelled(1000, 2), np.arange(1000) % 5 == 0, NONE)
    assert found.weights[3] < 0.1, "out of distribution"
    batch = labelled(20, 4).batch
    mixed = found.mixed(honest(batch), torch.full((20,), 3))
    assert (mixed - honest(batch)).abs().max() < 0.1 * honest(batch).max()
    assert torch.equal(found.mixed(honest(batch), torch.full((20,), 4)), found.density.expand(20, -1))


@pytest.mark.parametrize(
    ("rows", "whole"), [(0, (True, True)), (1, (True, True)), (12, (False, True)), (40, (False, False))]
)
def test_with_too_few_rows_for_coverage_the_interval_is_the_full_grid(rows: int, whole: tuple[bool, bool]) -> None:
    calib = labelled(1000, 2)
    found = prior.fit(honest, GRID, labelled(3000, 1), calib, np.arange(1000) < rows, NONE)
    contents = found.contents[3]
    assert tuple(content == 1 for content in contents) == whole
    if not rows:
        assert found.weights[3] == pytest.approx(0.5, abs=1e-3), (
            "half of what the model says and half of what all rows say"
        )
    assert all(content >= coverage for content, coverage in zip(contents, conformal.COVERAGES, strict=True))


def test_it_comes_back_from_what_is_saved() -> None:
    found = prior.fit(honest, GRID, labelled(300, 1), labelled(100, 2), np.zeros(100, bool), NONE)
    again = prior.Prior.restore(*found.state())
    assert again.weights == found.weights and again.contents == found.contents
    assert torch.equal(again.density, found.density) and again.nothing == len(BANDS) + 1


def covered(density: torch.Tensor, levels: torch.Tensor, z: np.ndarray) -> dict[float, tuple[float, float]]:
    """By stated coverage: the share of rows in the central interval of the density, and in the interval of stated coverage."""
    _, found = points.summarize_with(density, GRID, points.LEVELS, levels)
    ends = dict(zip((*points.LEVELS, *conformal.COLUMNS), found.numpy().T, strict=True))
    pairs = {0.68: ((0.16, 0.84), ("z_c160", "z_c840")), 0.95: ((0.025, 0.975), ("z_c025", "z_c975"))}
    return {
        coverage: tuple(float(((ends[low] <= z) & (z <= ends[high])).mean()) for low, high in both)  # type: ignore[misc]
        for coverage, both in pairs.items()
    }
