"""A toy model of the input kind image: the nearest training stamps in color and concentration."""

from __future__ import annotations

from typing import Any

import numpy as np
from zmill.models.toyneighbors import ToyNeighbors


class ToyStamps(ToyNeighbors):
    """The mean of the nearest rows."""

    inputs = ("image",)

    def _points(self, batch: Any) -> np.ndarray:
        return np.nan_to_num(batch.summary_features())


MODEL = ToyStamps
