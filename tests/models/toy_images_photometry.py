"""A small set of rows with a stamp and magnitudes for the tests of models: the same redshifts in both."""

from __future__ import annotations

import numpy as np

from models import toy_images
from models.toy_survey import BANDS, photometry
from zmill.inputs.base import Joint, LabelledBatch, ModelContext
from zmill.inputs.photometry.kind import PhotometryKind

GRID = toy_images.GRID
CONTEXT = ModelContext((PhotometryKind(BANDS, 1), toy_images.IMAGE), GRID, seed=3)


def labelled(n: int, seed: int, noise: float = 0.05) -> LabelledBatch:
    """Stamps as those of `toy_images`, and magnitudes whose g − r is 2 z, with 0.05 mag of noise."""
    rows = toy_images.labelled(n, seed, noise)
    rng = np.random.default_rng([seed, 1])
    r = 18 + 3 * np.sqrt(rows.z) + rng.normal(0, 0.5, n)
    mag = np.stack([r + 2 * rows.z, r, r - rows.z], axis=1) + rng.normal(0, 0.05, (n, 3))
    return LabelledBatch(Joint({"photometry": photometry(mag), "image": rows.batch}), rows.z, rows.weight)
