"""Mutual nearest neighbors of many sorted positions and few discs.

Few spectra are searched in the many sorted survey positions. A disc of the match radius lies in one HEALPix cell or, near
the cell's edge, in it and its neighbours; each cell is one interval of the survey's sorted index, found by bisection.
A pair within the radius is a candidate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cdshealpix
import numpy as np
from numpy.typing import NDArray

from zmill.catalog.sky import HEALPIX_ORDER

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ARCSEC = np.pi / 180 / 3600
NARROWEST = 0.45
"""Lower bound of the distance between opposite sides of any HEALPix cell, in radians times nside (smallest: 0.4909,
near the border of the polar caps at |dec| = 41.8 deg)."""
ROWS_PER_CELL = 1.0
"""Mean number of survey rows per cell: fewer means more cells, more means more distances to compute."""
CANDIDATES_AT_ONCE = 2_000_000
"""Distances computed at a time; limits the memory in dense fields."""


@dataclass(frozen=True)
class Discs:
    """Positions of spectra and the match radius of each.

    Attributes
    ----------
    healpix29 : (n,) int64, HEALPix NESTED indices of order 29.
    ra, dec : (n,) float64, degrees.
    radius : (n,) float64, arcsec.
    """

    healpix29: Ints
    ra: Floats
    dec: Floats
    radius: Floats

    def __len__(self) -> int:
        return len(self.ra)


@dataclass(frozen=True)
class Cells:
    """The cells of one order that discs touch, sorted, one entry for each pair of a cell and a disc.

    Attributes
    ----------
    start : (n,) int64, the cell's first index of order 29; size : indices in a cell.
    disc : (n,) int64, index of the disc.
    """

    start: Ints
    disc: Ints
    size: int

    def between(self, first: int, last: int) -> slice:
        """The cells that share an index with `first <= index <= last`."""
        return slice(
            int(np.searchsorted(self.start, first - self.size, side="right")),
            int(np.searchsorted(self.start, last, side="right")),
        )


@dataclass(frozen=True)
class Pairs:
    """Survey rows and discs within the radius of each other: `row` and `disc` (n,) int64, `separation` (n,) arcsec."""

    row: Ints
    disc: Ints
    separation: Floats


def cell_order(radius: float, density: float) -> int:
    """The HEALPix order of the search cells.

    Parameters
    ----------
    radius : largest radius, arcsec; a cell is at least as wide.
    density : survey rows per steradian.
    """
    widest = int(np.floor(np.log2(NARROWEST / (radius * ARCSEC))))
    fitting = int(np.ceil(0.5 * np.log2(max(density, 1e-9) * np.pi / (3 * ROWS_PER_CELL))))
    return max(0, min(widest, fitting, HEALPIX_ORDER))


def cells_of(discs: Discs, order: int) -> Cells:
    """The cells of `order` that each disc may touch: its own, and the eight around where it is near the edge."""
    shift = 2 * (HEALPIX_ORDER - order)
    own = discs.healpix29 >> shift
    width = 1 << (HEALPIX_ORDER - order)
    reach = discs.radius * ARCSEC * 2**HEALPIX_ORDER / NARROWEST + 1
    edge = np.zeros(len(discs), bool)
    for bits in (discs.healpix29, discs.healpix29 >> 1):
        offset = _even_bits(bits & ((1 << shift) - 1))
        edge |= (offset < reach) | (width - offset <= reach)
    near = np.flatnonzero(edge)
    around = cdshealpix.neighbours(own[near].astype(np.uint64), order) if len(near) else np.empty((0, 9), np.int64)
    there = around >= 0
    cell = np.concatenate([own[~edge], around[there]])
    disc = np.concatenate([np.flatnonzero(~edge), np.repeat(near, there.sum(axis=1))])
    by_cell = np.argsort(cell, kind="stable")
    return Cells(cell[by_cell] << shift, disc[by_cell], 1 << shift)


def candidates(healpix29: Ints, ra: Floats, dec: Floats, discs: Discs, cells: Cells) -> Pairs:
    """All pairs of a survey row and a disc within the disc's radius.

    Parameters
    ----------
    healpix29, ra, dec : (n,) survey positions, sorted by `healpix29`; degrees.
    """
    if not len(healpix29):
        return _no_pairs()
    touched = cells.between(int(healpix29[0]), int(healpix29[-1]))
    start, disc = cells.start[touched], cells.disc[touched]
    low = np.searchsorted(healpix29, start)
    count = np.searchsorted(healpix29, start + cells.size) - low
    filled = np.flatnonzero(count)
    low, count, disc = low[filled], count[filled], disc[filled]
    found = [
        _within(ra, dec, discs, _runs(low[part], count[part]), np.repeat(disc[part], count[part]))
        for part in _chunks(count)
    ]
    if not found:
        return _no_pairs()
    return Pairs(
        np.concatenate([pairs.row for pairs in found]),
        np.concatenate([pairs.disc for pairs in found]),
        np.concatenate([pairs.separation for pairs in found]),
    )


def nearest(group: Ints, cost: Floats, tie: Ints) -> tuple[Bools, Bools]:
    """Which entry of each group has the least cost, and which entries share their group with others.

    Parameters
    ----------
    group : (n,) int64 >= 0.
    cost : (n,) least for the chosen entry.
    tie : (n,) int64; among entries of equal cost, the one with the smallest `tie` is chosen.
    """
    shared = np.bincount(group)[group] > 1 if len(group) else np.zeros(0, bool)
    best = ~shared
    crowded = np.flatnonzero(shared)
    crowded = crowded[np.lexsort((tie[crowded], cost[crowded], group[crowded]))]
    first = np.diff(group[crowded], prepend=-1) != 0
    best[crowded[first]] = True
    return best, shared


def _even_bits(value: Ints) -> Ints:
    """The bits 0, 2, 4... of each value, compacted: one coordinate of a NESTED index."""
    value = value & 0x5555555555555555
    for shift, mask in (
        (1, 0x3333333333333333),
        (2, 0x0F0F0F0F0F0F0F0F),
        (4, 0x00FF00FF00FF00FF),
        (8, 0x0000FFFF0000FFFF),
        (16, 0x00000000FFFFFFFF),
    ):
        value = (value | (value >> shift)) & mask
    return value


def _chunks(count: Ints) -> Iterator[slice]:
    """Chunks of `count`, as slices, that each sum to about `CANDIDATES_AT_ONCE`."""
    total = np.cumsum(count)
    first = 0
    while first < len(count):
        done = total[first - 1] if first else 0
        last = max(int(np.searchsorted(total, done + CANDIDATES_AT_ONCE, side="right")), first + 1)
        yield slice(first, last)
        first = last


def _runs(low: Ints, count: Ints) -> Ints:
    """`low[0], low[0] + 1, ... (count[0] of them), low[1], ...`."""
    return np.arange(count.sum()) + np.repeat(low - np.cumsum(count) + count, count)


def _within(ra: Floats, dec: Floats, discs: Discs, row: Ints, disc: Ints) -> Pairs:
    """The pairs whose separation is within the radius."""
    radius = discs.radius[disc]
    close = np.abs(dec[row] - discs.dec[disc]) * 3600 <= radius * (1 + 1e-9) + 1e-9
    row, disc, radius = row[close], disc[close], radius[close]
    distance = separation(ra[row], dec[row], discs.ra[disc], discs.dec[disc])
    inside = distance <= radius
    return Pairs(row[inside], disc[inside], distance[inside])


def separation(ra: Floats, dec: Floats, other_ra: Floats, other_dec: Floats) -> Floats:
    """(n,) distance in arcsec of positions in degrees, by the haversine formula."""
    dec, other_dec = np.radians(dec), np.radians(other_dec)
    sin_dec = np.sin(0.5 * (dec - other_dec))
    sin_ra = np.sin(0.5 * np.radians(ra - other_ra))
    square = sin_dec**2 + np.cos(dec) * np.cos(other_dec) * sin_ra**2
    distance: Floats = 2 * np.arcsin(np.sqrt(np.minimum(square, 1))) / ARCSEC
    return distance


def _no_pairs() -> Pairs:
    return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
