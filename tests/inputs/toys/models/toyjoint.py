"""A toy model of two input kinds: the nearest training rows in magnitudes and spectrum together."""

from __future__ import annotations

from typing import Any

import numpy as np
from zmill.models.toyneighbors import ToyNeighbors


class ToyJoint(ToyNeighbors):
    """The mean of the nearest rows."""

    inputs = ("photometry", "toyspectrum")

    def _points(self, batch: Any) -> np.ndarray:
        kinds = batch.kinds
        points = np.concatenate([kinds["photometry"].mag, kinds["toyspectrum"].flux], axis=1)
        return np.nan_to_num(points.astype(np.float64))


MODEL = ToyJoint
