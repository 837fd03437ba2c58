"""Labelled rows of a sample table."""

from __future__ import annotations

import numpy as np

from models.toy_survey import BANDS, GRID, sample_table
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.photometry.kind import PhotometryKind


def test_rows_of_a_sample_keep_photometry_redshift_and_weight() -> None:
    table = sample_table(50, 1, weight=np.arange(50.0))
    context = ModelContext((PhotometryKind(BANDS, 1, ("size",)),), GRID, 1)
    rows = context.labelled(table)
    assert np.array_equal(rows.z, table["redshift"].to_numpy())
    assert np.array_equal(rows.weight, np.arange(50.0))
    assert np.array_equal(context.labelled(table, weighted=False).weight, np.ones(50))
    assert np.array_equal(rows.batch.mag[:, 1], table["mag_r"].to_numpy())
    assert np.isnan(rows.batch.extra).all(), "a column that the sample does not have is unknown"
    off = LabelledBatch(rows.batch, np.where(np.arange(50) < 5, GRID.z_max + 1, rows.z), rows.weight)
    assert np.array_equal(off.inside(GRID).weight, np.arange(5.0, 50.0))
