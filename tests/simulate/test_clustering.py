"""Galaxies cluster on the sky and in redshift, and stay within the field."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from zmill.simulate import clustering
from zmill.simulate.field import Field
from zmill.units import LIGHT_SPEED_KM_S

FIELD = Field(width=1.2, height=0.9)
N = 20_000


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(6)
    z = np.clip(rng.gamma(3, 0.25, N), 0.02, 3.5)
    red = rng.uniform(0, 1, N) < 0.3
    luminosity = rng.normal(0, 1, N)
    return z, red, luminosity, *clustering.positions(rng, FIELD, z, luminosity, red)


def pairs(x, y, radius):
    return len(cKDTree(np.stack([x, y], axis=1)).query_pairs(radius / 3600, output_type="ndarray"))


def test_close_pairs_exceed_chance_most_at_small_separations(sample):
    z, _, _, x, y, _, _ = sample
    near = (z > 0.4) & (z < 0.5)
    rng = np.random.default_rng(7)
    chance_x, chance_y = FIELD.scatter(rng, near.sum() * 10)
    excess = [100 * pairs(x[near], y[near], radius) / pairs(chance_x, chance_y, radius) for radius in (30, 180)]
    assert excess[0] > 1.5
    assert excess[1] > 1.05
    assert excess[0] > excess[1]


def test_members_of_a_group_share_a_redshift_and_a_position(sample):
    _, _, _, x, y, z, group = sample
    number, count = np.unique(group[group >= 0], return_counts=True)
    rich = number[count >= 8]
    assert len(rich) > 20
    spread = [np.std(z[group == one]) / (1 + z[group == one].mean()) * LIGHT_SPEED_KM_S for one in rich]
    assert 100 < np.median(spread) < 800  # km/s
    inside = [np.hypot(np.std(x[group == one]), np.std(y[group == one])) for one in rich]
    assert np.median(inside) < 0.05  # degrees


def test_red_galaxies_are_in_groups_more_often(sample):
    _, red, _, _, _, _, group = sample
    assert (group[red] >= 0).mean() == pytest.approx(clustering.GROUPED_RED, abs=0.02)
    assert (group[~red] >= 0).mean() == pytest.approx(clustering.GROUPED_BLUE, abs=0.02)


def test_everything_stays_in_the_field_and_near_its_redshift(sample):
    before, _, _, x, y, after, group = sample
    assert (x >= 0).all() and (x < FIELD.width).all() and (y >= 0).all() and (y < FIELD.height).all()
    assert (after[group < 0] == before[group < 0]).all()
    assert np.abs(np.log1p(after) - np.log1p(before)).max() < clustering.SHELL + 0.02


def test_most_luminous_member_is_at_the_center():
    of = np.array([1, 0, 1, 3, 3])
    assert clustering._most_luminous(of, np.array([5.0, 1.0, 4.0, 2.0, 9.0]), 4).tolist() == [1, 0, 4]


def test_one_galaxy_is_enough():
    rng = np.random.default_rng(1)
    x, _, z, _ = clustering.positions(rng, FIELD, np.array([0.5]), np.array([1.0]), np.array([True]))
    assert len(x) == len(z) == 1
