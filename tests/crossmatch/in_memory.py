"""The cross-match of a survey that is in memory: what the search through files must equal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zmill.crossmatch.match import Discs, Pairs, candidates, cell_order, cells_of, nearest

Ints, Floats, Bools = NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]


def match(survey_healpix29: Ints, survey_ra: Floats, survey_dec: Floats, discs: Discs) -> tuple[Pairs, Bools]:
    """Mutual nearest neighbors of a survey in memory: pairs in its order, and whether a second candidate was near."""
    density = len(survey_ra) / (4 * np.pi)
    cells = cells_of(discs, cell_order(float(np.max(discs.radius, initial=1.0)), density))
    pairs = candidates(survey_healpix29, survey_ra, survey_dec, discs, cells)
    of_row, row_shared = nearest(pairs.row, pairs.separation, pairs.disc)
    of_disc, disc_shared = nearest(pairs.disc, pairs.separation, pairs.row)
    chosen = np.flatnonzero(of_row & of_disc)
    chosen = chosen[np.argsort(pairs.row[chosen], kind="stable")]
    return (
        Pairs(pairs.row[chosen], pairs.disc[chosen], pairs.separation[chosen]),
        (row_shared | disc_shared)[chosen],
    )
