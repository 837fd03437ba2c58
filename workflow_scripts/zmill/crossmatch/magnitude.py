"""Cost of a pair by its separation and its difference of magnitudes.

A galaxy may have two detections, and the nearer one may be a piece of it or a neighbor. Where spectra have a
magnitude, the detection of equal magnitude is more likely. The offset and scatter of the magnitudes are measured for each
source on pairs without a second candidate, so that a different band or aperture only reduces the weight of the magnitude.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FEWEST = 20
"""Fewest pairs of a source from which its offset and scatter are measured; with fewer its magnitudes are not used."""
SMALLEST_SCATTER = 0.05
LARGEST = 5.0
"""Limit of a difference of magnitudes in standard deviations, because a magnitude may be wrong itself."""
MAD = 1.4826
RAYLEIGH = 1.1774
"""Median separation over its scatter per axis, for a normal scatter on both."""


def costs(separation: Floats, difference: Floats, source: Ints, alone: Bools) -> Floats:
    """Chi-square of each pair: of its separation, and of its difference of magnitudes from the source's median offset.

    Pairs of unknown magnitudes get the average term of 1.

    Parameters
    ----------
    separation : (n,) arcsec.
    difference : (n,) survey's magnitude less the spectrum's; NaN where one of them is unknown.
    source : (n,) number of the spectrum's source, from 0.
    alone : (n,) pairs in which neither side has a second candidate.
    """
    position = (separation / _position_scatter(separation, alone)) ** 2
    brightness = np.ones(len(separation))
    known = np.isfinite(difference)
    for one in np.unique(source):
        learn = difference[alone & known & (source == one)]
        here = known & (source == one)
        if len(learn) < FEWEST:
            brightness[here] = 1.0
            continue
        offset = np.median(learn)
        scatter = max(MAD * float(np.median(np.abs(learn - offset))), SMALLEST_SCATTER)
        brightness[here] = np.minimum(np.abs(difference[here] - offset) / scatter, LARGEST) ** 2
    return position + brightness


def _position_scatter(separation: Floats, alone: Bools) -> float:
    """Scatter of the separations per axis in arcsec."""
    of = separation[alone] if np.any(alone) else separation
    return max(float(np.median(of)) / RAYLEIGH, 1e-6) if len(of) else 1.0
