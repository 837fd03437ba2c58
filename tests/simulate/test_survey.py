"""The measurements of the simulated survey: correct errors, one convention for missing values, and deliberate bad rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial import cKDTree

from zmill.simulate import sky, survey
from zmill.simulate.field import Field
from zmill.simulate.galaxies import BANDS

FIELD = Field.of_area(0.3)


@pytest.fixture(scope="module")
def seen() -> tuple[sky.Sky, pa.Table]:
    rng = np.random.default_rng(10)
    return survey.observe(rng, FIELD, sky.make(rng, FIELD, 24.0), 24.0)


def values(table: pa.Table, kind: str) -> np.ndarray:
    return np.stack([table.column(f"{kind}_{band}").to_numpy() for band in BANDS], axis=1).astype(np.float64)


def test_errors_are_correct_and_the_milky_way_reddens(seen):
    true, table = seen
    mag, error = values(table, "mag"), values(table, "magerr")
    good = (mag > 0) & (mag < 90) & (error < 0.05) & (table.column("saturated").to_numpy() == 0)[:, None]
    pull = ((mag - true.reddened) / error)[good]
    assert abs(np.median(pull)) < 0.05
    assert 1.4826 * np.median(np.abs(pull)) == pytest.approx(1, abs=0.08)
    assert np.median((mag - true.mag)[:, 1][good[:, 1]]) > 0.03  # reddened, not corrected


def test_detection_is_in_i(seen):
    mag, error = values(seen[1], "mag")[:, 3], values(seen[1], "magerr")[:, 3]
    assert mag.max() < 24.0 and error.max() < 0.2


def test_undetected_has_its_limit_in_the_error_column(seen):
    mag, error = values(seen[1], "mag"), values(seen[1], "magerr")
    missing = mag == survey.UNDETECTED
    assert missing[:, 0].sum() > 100
    assert np.all((error[missing] > 20) & (error[missing] < 29))
    # the limit depends on the size of the aperture alone and lies beyond the faintest detections of 5 sigma
    sure = (mag[:, 0] > 0) & (mag[:, 0] < 90) & (error[:, 0] < 0.2)
    assert np.median(error[missing[:, 0], 0]) > np.quantile(mag[sure, 0], 0.9)


def test_unobserved_bands_are_contiguous_regions(seen):
    true, table = seen
    mag, error = values(table, "mag"), values(table, "magerr")
    expected = survey.unobserved(FIELD, true.x, true.y)
    assert np.array_equal(mag == survey.UNOBSERVED, expected)
    assert np.array_equal(error == survey.UNOBSERVED, expected)
    assert expected[:, 0].mean() == pytest.approx(0.25 * 0.35, abs=0.02)
    assert not expected[:, 1:4].any()


def test_saturated_rows_are_bright_or_near_a_bright_one(seen):
    true, table = seen
    flag = table.column("saturated").to_numpy() == 1
    change = (values(table, "mag") - true.reddened)[:, 3]
    bright = flag & (true.mag.min(axis=1) < 16.5)
    beside = flag & ~bright
    assert 0 < bright.sum() < 0.02 * len(flag)
    assert np.median(change[bright]) > 0.1  # flux is lost
    assert np.median(change[beside]) < -0.05  # flux is gained
    plane = np.stack([true.x, true.y], axis=1) * 3600
    assert cKDTree(plane[bright]).query(plane[beside])[0].max() < survey.HALO
    assert abs(np.median(change[~flag])) < 0.15  # the Milky Way alone


def test_sizes_tell_stars_from_nearby_galaxies(seen):
    true, table = seen
    size, bright = table.column("size").to_numpy(), true.mag[:, 3] < 21
    assert np.median(size[bright & (true.kind == sky.STAR)]) == pytest.approx(survey.PSF, abs=0.02)
    assert np.median(size[bright & (true.kind == sky.GALAXY)]) > 1.5 * survey.PSF


def test_identifiers_are_unique_and_no_float_holds_them(seen):
    ids = seen[1].column("objectId").to_numpy()
    assert len(np.unique(ids)) == len(ids)
    assert len(np.unique(ids.astype(np.float64))) < len(ids)


def test_neighbours_come_close_but_not_closer_than_the_resolution(seen):
    true, _ = seen
    plane = np.stack([true.x, true.y], axis=1) * 3600
    nearest = cKDTree(plane).query(plane, k=2)[0][:, 1]
    assert nearest.min() > sky.UNRESOLVED_ARCSEC
    assert np.sum(nearest < 1.5) > 100


def test_every_fault_is_there(seen):
    table = seen[1]
    tract = np.arange(table.num_rows) % 4
    spoiled, of = survey.spoil(np.random.default_rng(11), table, tract)
    count = spoiled.num_rows - table.num_rows
    column = {name: spoiled.column(name).to_numpy() for name in spoiled.column_names}
    assert count >= 2
    assert np.isnan(column["coord_ra"]).sum() == np.isnan(column["coord_dec"]).sum() == count
    assert (column["coord_dec"] > 90).sum() == (column["coord_ra"] < 0).sum() == count
    assert np.isinf(column["mag_r"]).sum() == count and np.isinf(column["mag_g"]).sum() == count // 2
    assert (column["magerr_i"] == 0).sum() == (column["magerr_i"] == -1).sum() == count
    ids, times = np.unique(column["objectId"], return_counts=True)
    assert (times == 2).sum() == count and times.max() == 2
    for twice in ids[times == 2]:
        assert len(set(of[column["objectId"] == twice])) == 2
