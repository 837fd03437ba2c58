"""Where a row is in magnitude and color.

All axes are in magnitudes, as Lima et al. (2008) take them: a step is as long along each. On the demo sky, axes scaled to
one width made weighed labelled rows less like the survey (docs/sample.md).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from zmill.inputs.photometry.batch import Photometry

FloatArray = NDArray[np.float64]


def places(rows: Photometry, reference: int) -> FloatArray:
    """(n, bands) the reference magnitude and the adjacent colors, blue minus red; NaN where unknown.

    A band that was not measured counts with its imputed value, or else with its limit where that is known, as it does
    for the models that take magnitudes.
    """
    mag = np.where(np.isfinite(rows.mag), rows.mag, rows.maglim).astype(np.float64)
    return np.concatenate([mag[:, [reference]], mag[:, :-1] - mag[:, 1:]], axis=1)


def names(bands: tuple[str, ...], reference: int) -> list[str]:
    """What the columns of `places` are: `i`, `u-g`, `g-r`…"""
    return [bands[reference], *(f"{blue}-{red}" for blue, red in pairwise(bands))]
