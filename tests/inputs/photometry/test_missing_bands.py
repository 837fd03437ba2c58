"""Removed bands: rows are as the survey would have written them and as the clean stage would have filled them."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from models.toy_survey import BANDS, labelled
from zmill import metrics
from zmill.inputs.degradation import AS_OBSERVED
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.impute import ColorSums, MeanColors, fill
from zmill.inputs.photometry.missing_bands import (
    BandRemoval,
    MissingPattern,
    missing_band_tests,
)
from zmill.training.missing_data import COLUMNS, name_of, table

NAN = np.float32(np.nan)


def with_missing_bands(n: int = 60) -> Photometry:
    """Rows of which every second is undetected in g at 26.5, every third unobserved in i, cleaned as a survey is."""
    rows = labelled(n, 1).batch
    undetected = np.where(np.arange(n) % 2 == 0, 1, 0).astype(np.int32)
    unobserved = np.where(np.arange(n) % 3 == 0, 4, 0).astype(np.int32)
    gone = ((undetected | unobserved)[:, None] >> np.arange(3)) & 1 == 1
    maglim = np.where(undetected[:, None] * (np.arange(3) == 0), np.float32(26.5), NAN)
    mag, imputed = fill(list(np.where(gone, NAN, rows.mag).T), colors())
    return replace(
        rows,
        mag=np.stack(mag, axis=1),
        magerr=np.where(gone, NAN, rows.magerr),
        maglim=maglim,
        undetected=undetected,
        unobserved=unobserved,
        imputed=imputed,
    )


def colors() -> MeanColors:
    sums = ColorSums(BANDS)
    sums.add(list(labelled(500, 2).batch.mag.T))
    return sums.colors()


@pytest.fixture
def removal() -> BandRemoval:
    return BandRemoval.of(with_missing_bands(), partial(fill, colors=colors()))


def same(one: Photometry, other: Photometry) -> bool:
    names = ("mag", "magerr", "maglim", "undetected", "unobserved", "imputed")
    return all(np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in names)


def test_every_pattern_is_there_once() -> None:
    names = [pattern.name for pattern in missing_band_tests(("u", "g", "r", "i", "z", "y"), 3)]
    assert names == [
        AS_OBSERVED,
        *(f"without {band}" for band in "ugrizy"),
        *("without u g", "without z y", "only r i", "only i"),
        *(f"{band} undetected" for band in "ugrizy"),
    ]
    assert [pattern.name for pattern in missing_band_tests(("g", "r"), 0)] == [
        *(AS_OBSERVED, "without g", "without r", "without g r", "g undetected", "r undetected")
    ]
    for bands, reference in ((("i",), 0), (("g", "r", "i"), 0), (tuple("ubgvrizjk"), 6)):
        found = missing_band_tests(bands, reference)
        assert len({(one.unobserved, one.undetected) for one in found}) == len(found)


def test_removing_no_band_changes_no_bit(removal: BandRemoval) -> None:
    rows = with_missing_bands()
    assert removal.concerns(rows, MissingPattern(AS_OBSERVED)).all()
    assert same(removal.apply(rows, MissingPattern(AS_OBSERVED)), rows)


def test_a_removed_band_is_unobserved(removal: BandRemoval) -> None:
    rows, pattern = with_missing_bands(), MissingPattern("without g", unobserved=(0,))
    lost = removal.apply(rows, pattern)
    assert np.all(lost.unobserved & 1 == 1) and not np.any(lost.undetected)
    assert np.isnan(lost.magerr[:, 0]).all() and np.isnan(lost.maglim[:, 0]).all()
    assert np.all(lost.imputed & 1 == 1)
    wanted = fill([np.full(len(rows), NAN), *rows.mag[:, 1:].T], colors())[0][0]
    here = rows.unobserved == 0
    assert np.array_equal(lost.mag[here, 0], wanted[here])
    assert np.array_equal(lost.mag[:, 1], rows.mag[:, 1])
    assert removal.concerns(rows, pattern).all()  # undetected rows lose it too


def test_a_filled_value_does_not_outlive_the_band_it_was_filled_from(removal: BandRemoval) -> None:
    """i of every third row was filled from g and r: without these nothing is left to fill it from."""
    rows, pattern = with_missing_bands(), MissingPattern("without g r", unobserved=(0, 1))
    lost = removal.apply(rows, pattern)
    empty = rows.unobserved & 4 == 4
    assert np.isnan(lost.mag[empty]).all() and not np.any(lost.imputed[empty])
    assert np.array_equal(removal.concerns(rows, pattern), ~empty)


def test_a_band_made_undetected_has_the_usual_limit(removal: BandRemoval) -> None:
    rows = with_missing_bands()
    assert removal.limits[0] == np.float32(26.5) and np.isnan(removal.limits[1:]).all()
    pattern = MissingPattern("g undetected", undetected=(0,))
    assert np.array_equal(removal.concerns(rows, pattern), rows.undetected == 0)
    lost = removal.apply(rows, pattern)
    assert np.all(lost.undetected & 1 == 1) and np.array_equal(lost.unobserved, rows.unobserved)
    assert np.all(lost.maglim[:, 0] == np.float32(26.5))
    assert np.isnan(lost.magerr[:, 0]).all() and np.all(lost.imputed & 1 == 1)
    unknown = removal.apply(rows, MissingPattern("r undetected", undetected=(1,)))
    assert np.isnan(unknown.maglim[:, 1]).all() and np.all(unknown.undetected & 2 == 2)


def test_without_imputation_lost_bands_stay_empty() -> None:
    rows = replace(with_missing_bands(), imputed=np.zeros(60, np.int32))
    rows = replace(rows, mag=np.where(rows.measured, rows.mag, NAN))
    lost = BandRemoval.of(rows, None).apply(rows, MissingPattern("without r", unobserved=(1,)))
    assert np.isnan(lost.mag[:, 1]).all() and not np.any(lost.imputed)
    assert np.array_equal(lost.mag[:, [0, 2]], rows.mag[:, [0, 2]], equal_nan=True)


def test_a_band_that_is_never_there_makes_no_pattern(removal: BandRemoval) -> None:
    rows = removal.apply(with_missing_bands(), MissingPattern("never", unobserved=(0,)))
    for pattern in (MissingPattern("without g", unobserved=(0,)), MissingPattern("g undetected", undetected=(0,))):
        assert not removal.concerns(rows, pattern).any()


def test_natural_patterns_are_named_by_state() -> None:
    assert name_of({"undetected": ["u"], "unobserved": [], "imputed": ["u", "y"]}) == "undetected u; imputed u y"
    assert name_of({"undetected": [], "unobserved": [], "imputed": []}) == "all measured"


def test_the_table_has_every_model_in_every_pattern() -> None:
    board = dict.fromkeys(metrics.ALL, 0.25)
    natural = {"undetected": [], "unobserved": [], "imputed": [], "n": 9}
    split = {
        "patterns": [{**natural, "board": board}],
        "made": [{"pattern": "without u", "n": 5, "board": {**board, "r2": None}}],
    }
    evaluations = {name: {"splits": {"valid": split, "calib": split, "test": split}} for name in ("b", "a")}
    rows = list(csv.DictReader(io.StringIO(table(evaluations))))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["split"], row["kind"], row["pattern"], row["model"], row["n"]) for row in rows] == [
        (split, kind, pattern, model, n)
        for split in ("valid", "test")
        for kind, pattern, n in (("natural", "all measured", "9"), ("made", "without u", "5"))
        for model in "ab"
    ]
    assert rows[0]["crps"] == "0.25" and rows[2]["r2"] == ""
