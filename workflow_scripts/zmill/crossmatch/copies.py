"""Detection of objects that the survey has more than once, such as those in the overlap of two tiles.

Two rows near one spectrum are copies of one object where they lie within `SEPARATION` of each other and their reference
magnitudes agree, or are both unknown. A piece of a galaxy or a neighbor has another magnitude.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from zmill.crossmatch.match import Bools, Floats, Ints, separation

SEPARATION = 0.5
"""Largest distance of two copies, arcsec: half the width of a point source from the ground."""
MAGNITUDE = 0.5
"""Largest difference of their reference magnitudes."""


def first_copies(
    row_id: Ints, ra: Floats, dec: Floats, magnitude: NDArray[np.float32], disc: Ints, cost: Floats
) -> tuple[Bools, int]:
    """Which candidates remain if one row is kept of all copies of an object, and how many objects have copies.

    The row with the least cost for any spectrum is kept; at equal cost the first.

    Parameters
    ----------
    row_id : (n,) identifies the row of each candidate. ra, dec : (n,) its position, degrees.
    magnitude : (n,) its reference magnitude, NaN where unknown.
    disc : (n,) the spectrum. cost : (n,) least for the best candidate.
    """
    if not len(row_id):
        return np.ones(0, bool), 0
    order = np.lexsort((row_id, cost, disc))
    start = np.flatnonzero(np.diff(disc[order], prepend=-1))
    best = np.repeat(order[start], np.diff(start, append=len(order)))
    other = order
    alike = np.abs(magnitude[best] - magnitude[other]) <= MAGNITUDE
    alike |= np.isnan(magnitude[best]) & np.isnan(magnitude[other])
    near = separation(ra[best], dec[best], ra[other], dec[other]) <= SEPARATION
    linked = alike & near & (row_id[best] != row_id[other])
    if not linked.any():
        return np.ones(len(row_id), bool), 0
    rows, row = np.unique(row_id, return_inverse=True)
    links = coo_array(
        (np.ones(linked.sum(), bool), (row[best[linked]], row[other[linked]])), shape=(len(rows), len(rows))
    )
    of_row = connected_components(links, directed=False)[1]
    # The row of the candidate with the least cost of each object is kept.
    by_object = np.lexsort((row_id, cost, of_row[row]))
    first = by_object[np.flatnonzero(np.diff(of_row[row][by_object], prepend=-1))]
    stays = np.zeros(len(rows), bool)
    stays[row[first]] = True
    return stays[row], int(np.count_nonzero(np.bincount(of_row) > 1))
