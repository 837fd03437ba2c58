"""Rebinning of spectra onto another wavelength grid, which conserves flux and propagates variances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Edges = tuple[NDArray[np.float64], NDArray[np.float64]]

COVERED = 0.5
"""A new pixel is good where good pixels of the original spectrum cover at least this fraction of it."""


@dataclass(frozen=True)
class Rebinning:
    """Rebinning from one grid to another.

    shared : (new pixels, old pixels) width that each two pixels have in common, angstrom.
    squared : the squares of `shared`.
    width : (new pixels) angstrom.
    """

    shared: csr_array
    squared: csr_array
    width: NDArray[np.float64]

    @classmethod
    def of(cls, old: Edges, new: Edges) -> Self:
        """The rebinning of pixels with these lower and upper ends, (n) each, increasing; pixels do not overlap, but may have gaps."""
        from scipy.sparse import csr_array  # only the import needs scipy, and every job imports the input kinds

        ends = np.sort(np.concatenate([*old, *new]), kind="stable")
        ends = ends[np.append(True, np.diff(ends) > 0)]  # neighbors share theirs
        middle, width = (ends[1:] + ends[:-1]) / 2, np.diff(ends)
        column = np.searchsorted(old[0], middle, side="right") - 1
        row = np.searchsorted(new[0], middle, side="right") - 1
        kept = (column >= 0) & (row >= 0)
        kept[kept] &= (middle[kept] < old[1][column[kept]]) & (middle[kept] < new[1][row[kept]])
        starts = np.searchsorted(row[kept], np.arange(len(new[0]) + 1))
        shape = (len(new[0]), len(old[0]))
        shared, squared = (
            csr_array((data, column[kept], starts), shape=shape) for data in (width[kept], width[kept] ** 2)
        )
        return cls(shared, squared, new[1] - new[0])

    @property
    def empty(self) -> bool:
        """Whether the grids have no wavelength in common."""
        return self.shared.nnz == 0

    def apply(
        self, flux: NDArray[np.floating], ivar: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n, new pixels) mean flux densities and their inverse variances; both 0 where a new pixel is not `COVERED`.

        A new pixel is the mean of the good old ones, weighted by the width that they share with it. Where all are good, the integral
        of the flux over complete new pixels is that of the old spectrum. Errors of old pixels are taken as independent; those of
        neighboring new pixels are then correlated, which one variance per pixel does not express.

        flux, ivar : (n, old pixels); pixels with `ivar` 0 are not used.
        """
        good = ivar > 0
        variance = np.divide(1.0, ivar, out=np.zeros(ivar.shape), where=good)
        width = _of_rows(self.shared, good)
        covered = width >= COVERED * self.width
        safe = np.where(covered, width, 1.0)
        mean = _of_rows(self.shared, np.where(good, flux, 0.0)) / safe
        spread = _of_rows(self.squared, variance) / safe**2
        return np.where(covered, mean, 0.0), np.divide(1.0, spread, out=np.zeros(spread.shape), where=covered)


def _of_rows(operator: csr_array, rows: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.ascontiguousarray((operator @ np.ascontiguousarray(rows.T, dtype=np.float64)).T)
