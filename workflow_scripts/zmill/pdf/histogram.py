"""Redshift distributions of rows with known redshifts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmill.pdf.grid import Grid


def n_of_z(z: NDArray[np.float64], weight: NDArray[np.float64], grid: Grid) -> Tensor:
    """(grid.size,) float32 n(z) of rows: a weighted histogram spread linearly over the grid points next to each redshift.

    z, weight : (n,) redshifts and weights. Redshifts beyond the grid are left out; n(z) is flat where there are no others.
    """
    inside = (z >= grid.z_min) & (z <= grid.z_max)
    z, weight = z[inside], weight[inside]
    position = np.clip((z - grid.z_min) / grid.step, 0, grid.size - 1)
    cell = np.minimum(position.astype(np.int64), grid.size - 2)
    right = (position - cell) * weight
    counts = np.bincount(cell, weight - right, grid.size) + np.bincount(cell + 1, right, grid.size)
    return grid.normalize(torch.as_tensor(counts, dtype=torch.float32)[None])[0]
