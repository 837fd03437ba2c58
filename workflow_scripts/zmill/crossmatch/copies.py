"""Removal of copies (`zmill.inputs.copies`) from the candidates of spectra: one row of each object is kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from zmill.crossmatch.match import Bools, Floats, Ints, separation
from zmill.inputs.base import InputKind
from zmill.inputs.copies import SEPARATION, agree


def first_copies(
    row_id: Ints, rows: pa.Table, disc: Ints, cost: Floats, inputs: Sequence[InputKind]
) -> tuple[Bools, int]:
    """Which candidates remain if one row is kept of all copies of an object, and how many objects have copies.

    The row with the least cost for any spectrum is kept; at equal cost the first.

    Parameters
    ----------
    row_id : (n,) identifies the row of each candidate.
    rows : n rows with its position, `ra` and `dec` in degrees, and columns of the input kinds of the survey, `inputs`.
    disc : (n,) the spectrum. cost : (n,) least for the best candidate.
    """
    if not len(row_id):
        return np.ones(0, bool), 0
    order = np.lexsort((row_id, cost, disc))
    start = np.flatnonzero(np.diff(disc[order], prepend=-1))
    best = np.repeat(order[start], np.diff(start, append=len(order)))
    ra, dec = (rows[name].to_numpy() for name in ("ra", "dec"))
    near = separation(ra[best], dec[best], ra[order], dec[order]) <= SEPARATION
    near &= row_id[best] != row_id[order]
    best, other = best[near], order[near]
    linked = agree(inputs, rows.take(pa.array(best)), rows.take(pa.array(other)))
    if not linked.any():
        return np.ones(len(row_id), bool), 0
    ids, row = np.unique(row_id, return_inverse=True)
    links = coo_array(
        (np.ones(linked.sum(), bool), (row[best[linked]], row[other[linked]])), shape=(len(ids), len(ids))
    )
    of_row = connected_components(links, directed=False)[1]
    # The row of the candidate with the least cost of each object is kept.
    by_object = np.lexsort((row_id, cost, of_row[row]))
    first = by_object[np.flatnonzero(np.diff(of_row[row][by_object], prepend=-1))]
    stays = np.zeros(len(ids), bool)
    stays[row[first]] = True
    return stays[row], int(np.count_nonzero(np.bincount(of_row) > 1))
