"""Tiles for requests to a service: HEALPix pixels that cover the survey's footprint with little sky around it."""

from __future__ import annotations

from dataclasses import dataclass

import cdshealpix
import numpy as np
from numpy.typing import NDArray

from zmill.catalog.footprint import MARGIN_ORDER, Footprint
from zmill.catalog.sky import HEALPIX_ORDER, healpix, unit_vectors

FILLED = 0.5
"""A tile of which a smaller fraction is wanted is split."""
EDGE_STEPS = 16
"""Points on each edge of a tile from which its box and circle are computed."""
SLACK = 1.01
"""Factor by which the box and the circle are enlarged."""


@dataclass(frozen=True, order=True)
class Tile:
    """A HEALPix pixel (NESTED)."""

    order: int
    pixel: int

    def __str__(self) -> str:
        ra, dec, radius = self.circle()
        return f"tile {self.order}/{self.pixel} (ra {ra:.4f}, dec {dec:.4f}, {2 * radius:.3g} deg)"

    def interval(self) -> tuple[int, int]:
        """First and one past last HEALPix index of order 29."""
        shift = 2 * (HEALPIX_ORDER - self.order)
        return self.pixel << shift, (self.pixel + 1) << shift

    def children(self) -> list[Tile]:
        """The four tiles of the next order."""
        return [Tile(self.order + 1, 4 * self.pixel + number) for number in range(4)]

    def ancestors(self) -> list[Tile]:
        """The tiles of lower orders that contain it, the smallest first."""
        return [Tile(self.order - up, self.pixel >> 2 * up) for up in range(1, self.order + 1)]

    def holds(self, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which positions in degrees lie in the tile; False for invalid positions."""
        inside = np.isfinite(ra) & np.isfinite(dec) & (np.abs(np.nan_to_num(dec)) <= 90)
        inside[inside] = healpix(ra[inside] % 360, dec[inside], self.order) == self.pixel
        return inside

    def circle(self) -> tuple[float, float, float]:
        """Right ascension, declination and radius in degrees of a circle around the tile."""
        lon, lat = cdshealpix.healpix_to_lonlat(np.array([self.pixel], np.uint64), self.order)
        ra, dec = float(lon.deg[0]), float(lat.deg[0])
        chord = np.linalg.norm(unit_vectors(*self._edge()) - unit_vectors(lon.deg, lat.deg), axis=1).max()
        return ra, dec, float(np.degrees(2 * np.arcsin(min(1.0, chord / 2))) * SLACK)

    def box(self) -> tuple[list[tuple[float, float]], tuple[float, float]]:
        """One or two ranges of right ascension (0 to 360) and a range of declination around the tile, in degrees."""
        ra, dec = self._edge()
        center = self.circle()[0]
        slack = (SLACK - 1) * (dec.max() - dec.min())
        south, north = max(-90.0, dec.min() - slack), min(90.0, dec.max() + slack)
        if max(-south, north) == 90:
            return [(0.0, 360.0)], (south, north)
        offset = (ra - center + 180) % 360 - 180
        slack = (SLACK - 1) * (offset.max() - offset.min())
        west, east = center + offset.min() - slack, center + offset.max() + slack
        if west < 0:
            return [(0.0, east), (west + 360, 360.0)], (south, north)
        if east > 360:
            return [(0.0, east - 360), (west, 360.0)], (south, north)
        return [(west, east)], (south, north)

    def _edge(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        lon, lat = cdshealpix.vertices(np.array([self.pixel], np.uint64), self.order, step=EDGE_STEPS)
        return lon.deg.ravel(), lat.deg.ravel()


def wanted(footprint: Footprint) -> Footprint:
    """The sky area of the labels: the footprint and the cells of order 11 that touch it.

    It is the set of positions for which `Footprint.near` is true.
    """
    from mocpy import MOC

    ranges = np.stack([footprint.start, footprint.end], axis=1).astype(np.uint64)
    moc = MOC.from_depth29_ranges(max_depth=HEALPIX_ORDER, ranges=ranges).degrade_to_order(MARGIN_ORDER)
    around = moc.add_neighbours().to_depth29_ranges.astype(np.int64)
    return Footprint(around[:, 0], around[:, 1])


def cover(area: Footprint, coarsest: int, finest: int) -> list[Tile]:
    """Disjoint tiles that cover the area, each at least half filled by it or of the finest order, in order of the sky."""
    shift = 2 * (HEALPIX_ORDER - coarsest)
    first, last = area.start >> shift, (area.end - 1) >> shift
    count = last - first + 1
    before = np.repeat(np.cumsum(count) - count, count)
    pixels = np.unique(np.repeat(first, count) + np.arange(count.sum()) - before)
    found: list[Tile] = []
    for order in range(coarsest, finest + 1):
        filled = fraction(area, pixels, order)
        keep = (filled >= FILLED) | ((order == finest) & (filled > 0))
        found += [Tile(order, pixel) for pixel in pixels[keep].tolist()]
        rest = pixels[(filled > 0) & ~keep]
        pixels = (4 * rest[:, None] + np.arange(4)).ravel()
    return sorted(found, key=Tile.interval)


def fraction(area: Footprint, pixels: NDArray[np.int64], order: int) -> NDArray[np.float64]:
    """Fraction of each pixel that the area fills: (n,) from 0 to 1."""
    shift = 2 * (HEALPIX_ORDER - order)
    filled = _filled_below(area, (pixels + 1) << shift) - _filled_below(area, pixels << shift)
    return filled / float(1 << shift)


def _filled_below(area: Footprint, index: NDArray[np.int64]) -> NDArray[np.int64]:
    length = area.end - area.start
    total = np.concatenate([[0], np.cumsum(length)])
    interval = np.searchsorted(area.start, index, side="right") - 1
    within = np.clip(index - area.start[interval], 0, length[interval])
    return np.where(interval < 0, 0, total[interval] + within)
