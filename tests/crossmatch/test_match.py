"""Matching in memory equals brute force, wherever on the sphere."""

from __future__ import annotations

import astropy.units as u
import cdshealpix
import numpy as np
import pytest
from astropy.coordinates import SkyCoord, match_coordinates_sky, search_around_sky
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory import match

from zmill.catalog.sky import healpix
from zmill.crossmatch.chance import expected_false, shifted
from zmill.crossmatch.match import (
    NARROWEST,
    Discs,
    cells_of,
)

PLACES = [
    (0.0, 90.0),
    (123.4, 90.0 - 1e-4),
    (10.0, -90.0),
    (0.0, 0.0),
    (0.0, 41.8103149),
    (45.0, 41.8103149),
    (90.0, -41.8103149),
    (45.0, 0.0),
    (90.0, 66.44),
    (200.0, -12.3),
]
"""Poles, RA = 0, the border of the polar caps, corners and edges of HEALPix base cells."""


def sorted_positions(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    index = healpix(ra, dec)
    order = np.argsort(index, kind="stable")
    return index[order], ra[order], dec[order]


def discs_of(ra: np.ndarray, dec: np.ndarray, radius: np.ndarray | float) -> Discs:
    index, ra, dec = sorted_positions(ra, dec)
    return Discs(index, ra, dec, np.broadcast_to(np.asarray(radius, float), ra.shape))


def around(place: tuple[float, float], offsets: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Positions at offsets in arcsec (position angle in degrees, distance)."""
    if not offsets:
        return np.empty(0), np.empty(0)
    angle, distance = np.array(offsets, float).T
    center = SkyCoord(place[0] * u.deg, place[1] * u.deg)
    there = center.directional_offset_by(angle * u.deg, distance * u.arcsec)
    return np.atleast_1d(there.ra.deg), np.atleast_1d(there.dec.deg)


def brute_force(ra, dec, discs: Discs) -> tuple[dict[int, int], set[int]]:
    """Row -> disc of mutual nearest neighbours, and the rows that are ambiguous, by all separations."""
    if not len(ra) or not len(discs):
        return {}, set()
    a, b = SkyCoord(ra, dec, unit="deg"), SkyCoord(discs.ra, discs.dec, unit="deg")
    separation = a[:, None].separation(b[None]).arcsec
    inside = separation <= discs.radius[None]
    masked = np.where(inside, separation, np.inf)
    found, ambiguous = {}, set()
    for row, disc in np.argwhere(inside):
        if masked[row].min() == masked[row, disc] == masked[:, disc].min():
            found[int(row)] = int(disc)
            if inside[row].sum() > 1 or inside[:, disc].sum() > 1:
                ambiguous.add(int(row))
    return found, ambiguous


OFFSETS = st.lists(st.tuples(st.floats(0, 360), st.floats(0, 4)), max_size=12)


@settings(max_examples=150, deadline=None)
@given(place=st.sampled_from(PLACES), survey=OFFSETS, spectra=OFFSETS, radii=st.sampled_from([0.7, 1.0, 2.5]))
def test_equals_brute_force_of_all_pairs(place, survey, spectra, radii) -> None:
    index, ra, dec = sorted_positions(*around(place, survey))
    discs = discs_of(*around(place, spectra), radii)
    a, b = SkyCoord(ra, dec, unit="deg"), SkyCoord(discs.ra, discs.dec, unit="deg")
    separation = a[:, None].separation(b[None]).arcsec if len(ra) and len(discs) else np.empty((0, 0))
    if (np.abs(separation - radii) < 1e-7).any():
        return
    near = separation[separation < radii]
    if len(near) > 1 and np.diff(np.sort(near)).min() < 1e-7:
        return
    pairs, ambiguous = match(index, ra, dec, discs)
    found, unsure = brute_force(ra, dec, discs)
    assert dict(zip(pairs.row.tolist(), pairs.disc.tolist(), strict=True)) == found
    assert set(pairs.row[ambiguous].tolist()) == unsure
    assert np.allclose(pairs.separation, separation[pairs.row, pairs.disc], atol=1e-6)


def test_equals_astropy_over_a_field_at_ra_zero() -> None:
    random = np.random.default_rng(5)
    ra, dec = random.uniform(-0.05, 0.05, 4000) % 360, random.uniform(-0.05, 0.05, 4000)
    index, ra, dec = sorted_positions(ra, dec)
    pick = random.choice(4000, 500, replace=False)
    discs = discs_of((ra[pick] + random.normal(0, 1e-4, 500)) % 360, dec[pick] + random.normal(0, 1e-4, 500), 3.0)
    survey, spectra = SkyCoord(ra, dec, unit="deg"), SkyCoord(discs.ra, discs.dec, unit="deg")
    to_survey, separation, _ = match_coordinates_sky(spectra, survey)
    to_spectra, _, _ = match_coordinates_sky(survey, spectra)
    mutual = (separation < 3 * u.arcsec) & (to_spectra[to_survey] == np.arange(500))
    pairs, ambiguous = match(index, ra, dec, discs)
    assert {*zip(pairs.row.tolist(), pairs.disc.tolist(), strict=True)} == {
        *zip(to_survey[mutual].tolist(), np.flatnonzero(mutual).tolist(), strict=True)
    }
    row, disc, _, _ = search_around_sky(survey, spectra, 3 * u.arcsec)
    crowded = (np.bincount(row, minlength=4000)[pairs.row] > 1) | (np.bincount(disc, minlength=500)[pairs.disc] > 1)
    assert (ambiguous == crowded).all()
    assert 0 < ambiguous.sum() < len(ambiguous)


def test_each_disc_has_its_own_radius() -> None:
    index, ra, dec = sorted_positions(np.array([10.0, 20.0]), np.array([0.0, 0.0]))
    to_index, to_ra, to_dec = sorted_positions(np.array([10.0, 20.0]), np.array([2 / 3600, 2 / 3600]))
    pairs, _ = match(index, ra, dec, Discs(to_index, to_ra, to_dec, np.where(to_ra == 20, 3.0, 1.0)))
    assert to_ra[pairs.disc].tolist() == ra[pairs.row].tolist() == [20.0]


def test_of_coincident_rows_and_discs_the_first_is_taken() -> None:
    index, ra, dec = sorted_positions(np.full(3, 33.0), np.full(3, -5.0))
    pairs, ambiguous = match(index, ra, dec, discs_of(np.full(2, 33.0), np.full(2, -5.0), 1.0))
    assert pairs.row.tolist() == [0] and pairs.disc.tolist() == [0] and ambiguous.tolist() == [True]


@pytest.mark.parametrize("order", [5, 9, 13, 16])
def test_the_cells_of_a_disc_hold_all_of_it(order: int) -> None:
    """Points on the rim of discs all over the sphere lie in a cell that the disc is said to touch."""
    random = np.random.default_rng(order)
    n = 20_000
    dec = np.degrees(np.arcsin(random.uniform(-1, 1, n)))
    dec[: n // 4] = np.clip(
        random.choice([41.8103, -41.8103, 90, -90, 0], n // 4) + random.normal(0, 1e-3, n // 4), -90, 90
    )
    ra = random.uniform(0, 360, n)
    ra[n // 8 : n // 2] = random.choice([0, 45, 90, 180, 225], n // 2 - n // 8) + random.normal(
        0, 1e-3, n // 2 - n // 8
    )
    ra %= 360
    radius = 0.45 / 2**order * 206264.8 * random.uniform(0.02, 1, n)
    discs = Discs(healpix(ra, dec), ra, dec, radius)
    cells = cells_of(discs, order)
    assert (np.diff(cells.start) >= 0).all()
    touched = {*zip((cells.start // cells.size).tolist(), cells.disc.tolist(), strict=True)}
    center = SkyCoord(ra, dec, unit="deg")
    for angle in range(0, 360, 30):
        rim = center.directional_offset_by(angle * u.deg, radius * 0.999999 * u.arcsec)
        cell = healpix(rim.ra.deg, rim.dec.deg, order)
        assert all(pair in touched for pair in zip(cell.tolist(), range(n), strict=True))


def test_no_cell_is_narrower_than_the_bound() -> None:
    order = 7
    lon, lat = cdshealpix.vertices(np.arange(12 * 4**order, dtype=np.uint64), order, step=1)
    corner = SkyCoord(lon, lat).cartesian.xyz.value  # (3, cells, 4)
    heights = []
    for side in range(4):
        normal = np.cross(corner[:, :, side], corner[:, :, (side + 1) % 4], axis=0)
        normal /= np.linalg.norm(normal, axis=0)
        heights += [np.arcsin(np.abs((normal * corner[:, :, (side + k) % 4]).sum(0))) for k in (2, 3)]
    assert np.min(heights) * 2**order > NARROWEST


def test_empty_sides() -> None:
    none = np.empty(0)
    index, ra, dec = sorted_positions(np.array([1.0]), np.array([1.0]))
    assert len(match(index, ra, dec, discs_of(none, none, 1.0))[0].row) == 0
    assert len(match(none.astype(np.int64), none, none, discs_of(ra, dec, 1.0))[0].row) == 0


def test_shifted_spectra_find_the_chance_of_a_random_field() -> None:
    """In a field of density n, a disc finds an object by chance with probability 1 - exp(-n pi r^2)."""
    random = np.random.default_rng(3)
    index, ra, dec = sorted_positions(random.uniform(40, 41, 200_000), random.uniform(-0.5, 0.5, 200_000))
    inner = np.flatnonzero((np.abs(dec) < 0.45) & (np.abs(ra - 40.5) < 0.45))[::20]
    discs = Discs(index[inner], ra[inner], dec[inner], np.full(len(inner), 2.0))
    moved = shifted(discs)
    order = np.argsort(moved.healpix29)
    pairs, _ = match(index, ra, dec, Discs(*(x[order] for x in (moved.healpix29, moved.ra, moved.dec, moved.radius))))
    chance = 1 - np.exp(-200_000 * np.pi * (2 / 3600) ** 2)
    assert len(pairs.row) / len(moved) == pytest.approx(chance, rel=0.1)


def test_expected_false_matches_counts_lonely_and_overtaken_spectra() -> None:
    assert expected_false(0.0, 100, np.zeros(80), np.ones(80)) == 0
    assert expected_false(0.5, 100, np.zeros(80), np.ones(80)) == pytest.approx(20)
    assert expected_false(0.01, 100, np.full(100, 0.5), np.ones(100)) == pytest.approx(0.25)
    assert expected_false(1.0, 100, np.zeros(90), np.ones(90)) == 90
