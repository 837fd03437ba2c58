"""Tiles hold the footprint and its margin; their boxes and circles hold the tiles."""

from __future__ import annotations

from pathlib import Path

import cdshealpix
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.sky import make_request

from zmill.catalog.footprint import Footprint
from zmill.catalog.sky import HEALPIX_ORDER, healpix
from zmill.labels.tiles import FILLED, Tile, cover, fraction, wanted

orders = st.integers(0, 9)


@st.composite
def tiles(draw: st.DrawFn) -> Tile:
    order = draw(orders)
    return Tile(order, draw(st.integers(0, 12 * 4**order - 1)))


def inside(tile: Tile) -> tuple[np.ndarray, np.ndarray]:
    """Positions all over a tile, most of them at its edge."""
    cells = np.arange(tile.pixel << 10, (tile.pixel + 1) << 10, dtype=np.uint64)
    lon, lat = cdshealpix.healpix_to_lonlat(cells, tile.order + 5)
    corners = cdshealpix.vertices(np.array([tile.pixel], np.uint64), tile.order, step=7)
    return np.append(lon.deg, corners[0].deg.ravel()), np.append(lat.deg, corners[1].deg.ravel())


@given(tiles())
def test_box_and_circle_hold_the_tile(tile: Tile) -> None:
    ra, dec = inside(tile)
    ranges, (south, north) = tile.box()
    assert ((dec >= south) & (dec <= north)).all()
    assert np.any([(ra >= west - 1e-9) & (ra <= east + 1e-9) for west, east in ranges], axis=0).all()
    assert all(0 <= west < east <= 360 for west, east in ranges)
    center_ra, center_dec, radius = tile.circle()
    cosine = np.sin(np.radians(dec)) * np.sin(np.radians(center_dec)) + np.cos(np.radians(dec)) * np.cos(
        np.radians(center_dec)
    ) * np.cos(np.radians(ra - center_ra))
    assert (np.degrees(np.arccos(np.clip(cosine, -1, 1))) <= radius + 1e-9).all()


def test_box_of_a_small_tile_is_little_larger_than_the_tile() -> None:
    for tile in (
        Tile(6, int(healpix(np.array([200.0]), np.array([30.0]), 6)[0])),
        Tile(6, int(healpix(np.array([0.0]), np.array([5.0]), 6)[0])),
    ):
        ranges, (south, north) = tile.box()
        width = sum(east - west for west, east in ranges) * np.cos(np.radians((south + north) / 2))
        assert width * (north - south) < 2.6 * 0.839


@given(tiles(), st.integers(0, 2**32))
def test_a_position_is_in_one_tile(tile: Tile, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(-360, 360, 50), np.degrees(np.arcsin(rng.uniform(-1, 1, 50)))
    assert (tile.holds(ra, dec) == np.sum([child.holds(ra, dec) for child in tile.children()], axis=0)).all()
    assert not tile.holds(np.array([np.nan, 0.0]), np.array([0.0, 91.0])).any()


@pytest.mark.parametrize(
    ("ra", "dec", "size"), [(150.0, 2.0, 1.0), (0.1, -30.0, 3.0), (10.0, 89.0, 0.5), (40.0, 0.0, 0.05)]
)
def test_tiles_hold_the_sky_that_labels_are_taken_from(tmp_path: Path, ra: float, dec: float, size: float) -> None:
    footprint = make_request(tmp_path, ra, dec, size).footprint
    area = wanted(footprint)
    rng = np.random.default_rng(1)
    around = size / 2 + 0.1
    east, north = rng.uniform(-around, around, (2, 20_000))
    index = healpix((ra + east / np.cos(np.radians(dec))) % 360, np.clip(dec + north, -90, 90))
    near = footprint.near(index)
    assert 100 < near.sum() < 20_000
    assert (area.overlaps(index, index + 1) == near).all()
    found = cover(area, 4, 8)
    edges = np.array([tile.interval() for tile in found])
    assert (edges[1:, 0] >= edges[:-1, 1]).all()
    tiled = Footprint(edges[:, 0], edges[:, 1])
    assert tiled.overlaps(index, index + 1)[near].all()
    for tile in found:
        filled = fraction(area, np.array([tile.pixel]), tile.order)[0]
        assert filled >= FILLED or (tile.order == 8 and filled > 0)


def test_the_whole_sky_is_tiles_of_the_coarsest_order() -> None:
    whole = Footprint(np.array([0]), np.array([12 << 2 * HEALPIX_ORDER]))
    assert cover(wanted(whole), 2, 5) == [Tile(2, pixel) for pixel in range(192)]
