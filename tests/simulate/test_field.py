"""The patch of sky: equal areas, across RA = 0, where base pixels of HEALPix meet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmill.catalog import sky
from zmill.simulate.field import Field, offset, smooth_map


def test_area_and_shape():
    field = Field.of_area(3.0)
    assert field.area == pytest.approx(3.0)
    assert field.width > field.height
    assert Field.of_area(41_252.96).sky_fraction == pytest.approx(1)


def test_field_crosses_ra_zero_and_three_base_pixels():
    field = Field.of_area(1.0)
    ra, dec = field.sky(*field.scatter(np.random.default_rng(1), 5000))
    assert ra.min() >= 0 and ra.max() < 360
    assert np.any(ra < 1) and np.any(ra > 359)
    assert len(np.unique(sky.healpix(ra, dec, 0))) == 3


def test_positions_are_uniform_on_the_sphere():
    field = Field(width=10.0, height=10.0)
    _, dec = field.sky(*field.scatter(np.random.default_rng(2), 200_000))
    x, y = field.scatter(np.random.default_rng(3), 100_000)
    ra, dec = field.sky(x, y)
    sine = np.sin(np.radians(dec))
    middle = np.abs(np.mod(ra + 180, 360) - 180) < 6  # a strip in right ascension holds equal areas of sin(dec)
    counts, _ = np.histogram(sine[middle], 8)
    assert counts.std() / counts.mean() < 0.03


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 359.999), st.floats(-80, 80), st.floats(-5, 5), st.floats(-5, 5))
def test_offsets_have_the_requested_length(ra, dec, east, north):
    moved = offset(np.array([ra]), np.array([dec]), np.array([east]), np.array([north]))
    a, b = sky.unit_vectors(np.array([ra]), np.array([dec])), sky.unit_vectors(*moved)
    separation = np.degrees(2 * np.arcsin(np.linalg.norm(a - b) / 2)) * 3600
    assert separation == pytest.approx(np.hypot(east, north), abs=2e-3)


def test_smooth_map_is_smooth_and_normal():
    x = np.linspace(0, 40, 20_000)
    values = smooth_map(np.random.default_rng(4), x, x / 3, scale=0.8)
    assert abs(values.mean()) < 0.2
    assert values.std() == pytest.approx(1, abs=0.25)
    assert np.abs(np.diff(values)).max() < 0.2
