"""Where on the sky a catalogue has rows, to the HEALPix cell of 3.4 arcmin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zmill.catalog.hats import ROW_GROUP_ROWS, batches, partitions
from zmill.catalog.sky import HEALPIX_COLUMN, HEALPIX_ORDER, at_order

ORDER = 10
"""HEALPix order of the cells of a footprint: 3.4 arcmin wide."""
MARGIN_ORDER = 11
"""Cells of this order are at least 49 arcsec and typically 103 arcsec wide."""
SHOWN = 1_000_000
"""Largest number of cells that a description uses."""


@dataclass(frozen=True)
class Footprint:
    """A part of the sky: disjoint intervals of HEALPix indices of order 29, `start <= index < end`, sorted.

    Attributes
    ----------
    start, end : (n,) int64, borders of cells of order 10 or finer.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]

    @staticmethod
    def of(start: NDArray[np.int64], end: NDArray[np.int64]) -> Footprint:
        """The footprint of disjoint cells; touching ones become one interval."""
        order = np.argsort(start)
        start, end = start[order], end[order]
        first = np.diff(start, prepend=-1) != np.concatenate([[-1], (end - start)[:-1]])[: len(start)]
        last = np.append(first[1:], True)[: len(end)]
        return Footprint(start[first], end[last])

    @staticmethod
    def of_positions(healpix29: NDArray[np.int64], order: int = ORDER) -> Footprint:
        """The cells of an order that hold some of the positions, given by their HEALPix indices of order 29, (n,)."""
        shift = 2 * (HEALPIX_ORDER - order)
        cell = np.unique(at_order(healpix29, order)) << shift
        return Footprint.of(cell, cell + (1 << shift))

    @staticmethod
    def read(catalog: Path) -> Footprint:
        """The cells in which a finished HATS catalogue has rows.

        Partitions of a lower order than the cells are read, one column in pieces.
        """
        shift = 2 * (HEALPIX_ORDER - ORDER)
        intervals = [np.empty((0, 2), np.int64)]
        for partition in partitions(catalog):
            if partition.order >= ORDER:
                intervals.append(np.array([partition.interval()], np.int64))
                continue
            pieces = batches(catalog, partition, [HEALPIX_COLUMN], ROW_GROUP_ROWS)
            cells = [np.unique(at_order(piece[0].to_numpy(), ORDER)) for piece in pieces]
            if cells:
                cell = np.unique(np.concatenate(cells)) << shift
                intervals.append(np.stack([cell, cell + (1 << shift)], axis=1))
        every = np.concatenate(intervals)
        return Footprint.of(every[:, 0], every[:, 1])

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
            import cdshealpix  # astropy comes with it

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
        import cdshealpix

        size = 1 << 2 * (HEALPIX_ORDER - ORDER)
        number = np.maximum((self.end - self.start) // size, 1)
        step = max(1, -(-int(number.sum()) // SHOWN))
        first = np.repeat(self.start - (np.cumsum(number) - number) * size, number)[::step]
        cells = first + np.arange(number.sum())[::step] * size
        lon, lat = cdshealpix.healpix_to_lonlat((cells >> 2 * (HEALPIX_ORDER - ORDER)).astype(np.uint64), ORDER)
        area = float((self.end - self.start).sum()) / (12 * 4**HEALPIX_ORDER) * 41_252.96
        return (
            f"{describe_positions(lon.deg, lat.deg)}, {number.sum()} HEALPix pixels of order {ORDER} ({area:.4g} deg2)"
        )


def describe_positions(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> str:
    """`ra 350 to 10, dec -1.2 to 1.2 deg` of finite positions in degrees."""
    if not len(ra):
        return "no position"
    ring = np.unique(np.asarray(ra, np.float64) % 360)
    gaps = np.diff(ring, append=ring[0] + 360)
    widest = int(np.argmax(gaps))
    first, last = ring[(widest + 1) % len(ring)], ring[widest]
    return f"ra {first:.6g} to {last:.6g}, dec {np.min(dec):.6g} to {np.max(dec):.6g} deg"
