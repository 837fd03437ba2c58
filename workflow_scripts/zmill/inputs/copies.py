"""Copies: rows of one object under different identifiers, such as those in the overlap of two tiles.

Two rows are copies where they lie within `SEPARATION` of each other and their measurements agree (`InputKind.agree`). A piece of
a galaxy or a neighbor has another magnitude.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zmill.inputs.base import InputKind, Rows

SEPARATION = 0.5
"""Largest distance of two copies, arcsec: half the width of a point source from the ground."""
NEAREST = 0.2
"""Largest distance where all rows of a survey are compared and not those near a spectrum: between this and `SEPARATION`, a deep survey has
as many pairs of unrelated objects as copies."""


def agree(inputs: Sequence[InputKind], one: Rows, other: Rows) -> NDArray[np.bool_]:
    """(n,) whether the measurements of pairs of rows at the same position agree, by the columns that both tables have.

    inputs : the input kinds of the survey. one, other : n rows of `survey/` each.
    """
    found = np.ones(one.num_rows, np.bool_)
    for kind in inputs:
        found &= kind.agree(one, other)
    return found
