"""Where on the sky a catalogue has rows, as its HEALPix pixels tell it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cdshealpix
import numpy as np
from numpy.typing import NDArray

from zmill.catalog.hats import Partition, partitions
from zmill.catalog.sky import HEALPIX_ORDER, at_order

MARGIN_ORDER = 11
"""Cells of this order are at least 49 arcsec and typically 103 arcsec wide."""


@dataclass(frozen=True)
class Footprint:
    """A part of the sky: disjoint intervals of HEALPix indices of order 29, `start <= index < end`, sorted.

    Attributes
    ----------
    start, end : (n,) int64.
    pixels : number of partitions that it is made of.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    pixels: int

    @staticmethod
    def of(found: list[Partition]) -> Footprint:
        """The footprint of a catalogue's partitions."""
        intervals = np.array(sorted(partition.interval() for partition in found), np.int64).reshape(-1, 2)
        return Footprint(intervals[:, 0], intervals[:, 1], len(intervals))

    @staticmethod
    def read(catalog: Path) -> Footprint:
        """The footprint of a finished HATS catalogue."""
        return Footprint.of(partitions(catalog))

    def overlaps(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the intervals `start <= index < end` share a cell with the footprint."""
        if not len(self.start):
            return np.zeros(len(start), bool)
        first = np.searchsorted(self.end, start, side="right")
        return (first < len(self.start)) & (self.start[np.minimum(first, len(self.start) - 1)] < end)

    def near(self, healpix29: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which positions lie in the footprint or within a cell of order 11 (49 to 103 arcsec) of its edge.

        Parameters
        ----------
        healpix29 : (n,) int64, HEALPix NESTED indices of order 29.
        """
        inside = self.overlaps(healpix29, healpix29 + 1)
        outside = np.flatnonzero(~inside)
        if len(outside):
            shift = 2 * (HEALPIX_ORDER - MARGIN_ORDER)
            cells, which = np.unique(at_order(healpix29[outside], MARGIN_ORDER), return_inverse=True)
            around = cdshealpix.neighbours(cells.astype(np.uint64), MARGIN_ORDER)
            close = self.overlaps(around.ravel() << shift, (around.ravel() + 1) << shift).reshape(around.shape)
            inside[outside] = (close & (around >= 0)).any(axis=1)[which]
        return inside

    def describe(self) -> str:
        """Ranges of right ascension and declination in degrees, and the number of pixels, for messages.

        The range of right ascension starts behind the widest gap, so that a field at RA = 0 reads `350 to 10`.
        """
        if not len(self.start):
            return "no pixel"
        size = self.end - self.start
        step = np.maximum(size // 16, 1)
        index = np.minimum(
            self.start[:, None] + step[:, None] * np.arange(16) + step[:, None] // 2, self.end[:, None] - 1
        )
        lon, lat = cdshealpix.healpix_to_lonlat(index.ravel().astype(np.uint64), HEALPIX_ORDER)
        area = float(size.sum()) / (12 * 4**HEALPIX_ORDER) * 41_252.96
        return f"{describe_positions(lon.deg, lat.deg)}, {self.pixels} HEALPix pixels of {area:.4g} deg2 together"


def describe_positions(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> str:
    """`ra 350 to 10, dec -1.2 to 1.2 deg` of finite positions in degrees."""
    if not len(ra):
        return "no position"
    ring = np.unique(np.asarray(ra, np.float64) % 360)
    gaps = np.diff(ring, append=ring[0] + 360)
    widest = int(np.argmax(gaps))
    first, last = ring[(widest + 1) % len(ring)], ring[widest]
    return f"ra {first:.6g} to {last:.6g}, dec {np.min(dec):.6g} to {np.max(dec):.6g} deg"
