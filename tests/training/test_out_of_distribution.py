"""The out-of-distribution flag: about 1 % of rows like the training rows, all of those that are unlike them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.toy_survey import BANDS, labelled, photometry
from zmill.training import out_of_distribution


@pytest.fixture(scope="module")
def detector() -> out_of_distribution.Detector:
    return out_of_distribution.fit(labelled(8000, 1).batch, seed=1)


def test_rows_like_the_training_rows_are_flagged_at_the_stated_rate(detector: out_of_distribution.Detector) -> None:
    assert detector(labelled(20_000, 2).batch).mean() == pytest.approx(0.01, abs=0.006)


@pytest.mark.parametrize("shift", [(0, 0, 12), (0, 12, 0), (6, 6, 6), (-14, -14, -14)])
def test_rows_unlike_them_are_flagged(detector: out_of_distribution.Detector, shift: tuple[float, ...]) -> None:
    batch = labelled(500, 3).batch
    assert detector(photometry(batch.mag + np.array(shift))).mean() > 0.99


def test_the_compiled_pass_flags_the_same_rows(detector: out_of_distribution.Detector) -> None:
    for rows in (0, 3, 5000):
        mag = labelled(rows, 11).batch.mag * np.float32(1.02)
        mag[::7, 0], mag[::11, 1] = np.nan, np.inf
        distance2 = detector.distance2(photometry(mag)).numpy()
        clear = np.abs(distance2 / detector.threshold - 1) > 1e-3
        assert (detector(photometry(mag)) == (distance2 > detector.threshold))[clear].all()
        assert not rows or clear.mean() > 0.9


def test_a_missing_color_alone_is_not_out_of_distribution(detector: out_of_distribution.Detector) -> None:
    mag = labelled(2000, 4).batch.mag.copy()
    mag[:, 0] = np.nan
    assert detector(photometry(mag)).mean() < 0.15


def test_a_band_that_never_exists_is_no_dimension() -> None:
    train = labelled(2000, 5).batch
    mag = train.mag.copy()
    mag[:, 2] = np.nan
    found = out_of_distribution.fit(replace(train, mag=mag), seed=1)
    assert found(replace(train, mag=mag)).mean() == pytest.approx(0.01, abs=0.01)


def test_a_few_wild_training_rows_do_not_hide_the_others() -> None:
    train = labelled(4000, 6).batch
    mag = train.mag.copy()
    mag[:8] += np.array([500, 0, -500])
    found = out_of_distribution.fit(photometry(mag), seed=1)
    assert found(photometry(labelled(300, 7).batch.mag + np.array([0, 0, 12]))).mean() > 0.99


def test_the_same_seed_gives_the_same_domain() -> None:
    train = labelled(1000, 8).batch
    one, two = out_of_distribution.fit(train, seed=4), out_of_distribution.fit(train, seed=4)
    assert one.threshold == two.threshold
    assert one.centers.equal(two.centers)


def test_few_rows_and_no_rows() -> None:
    found = out_of_distribution.fit(labelled(12, 9).batch, seed=1)
    assert found(labelled(5, 10).batch).shape == (5,)
    assert found(photometry(np.zeros((0, len(BANDS))))).shape == (0,)
