"""The color space of a survey: the reference magnitude and the adjacent colors.

All axes are in magnitudes, without scaling, as in Lima et al. (2008). On the demo sky, scaled axes made the weighted labelled
rows less similar to the survey (docs/sample.md).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from zmill.inputs.photometry.batch import Photometry

FloatArray = NDArray[np.float64]


def color_space(rows: Photometry, reference: int) -> FloatArray:
    """(n, bands) the reference magnitude and the adjacent colors, blue minus red; NaN where unknown.

    A band without a measurement has its imputed value, or else its limiting magnitude where that is known. Models that
    take magnitudes use the same rule.
    """
    mag = np.where(np.isfinite(rows.mag), rows.mag, rows.maglim).astype(np.float64)
    return np.concatenate([mag[:, [reference]], mag[:, :-1] - mag[:, 1:]], axis=1)


def names(bands: tuple[str, ...], reference: int) -> list[str]:
    """Names of the columns of `color_space`: `i`, `u-g`, `g-r`…"""
    return [bands[reference], *(f"{blue}-{red}" for blue, red in pairwise(bands))]
