"""A small set of rows with a spectrum and magnitudes for the tests of models: the same redshifts in both."""

from __future__ import annotations

import numpy as np

from models import toy_spectra
from models.toy_survey import BANDS, photometry
from zmill.inputs.base import Joint, LabelledBatch, ModelContext
from zmill.inputs.photometry.kind import PhotometryKind

GRID = toy_spectra.GRID
CONTEXT = ModelContext((PhotometryKind(BANDS, 1), *toy_spectra.CONTEXT.inputs), GRID, seed=3)


def labelled(n: int, seed: int, noise: float = 0.05) -> LabelledBatch:
    """Spectra as those of `toy_spectra`, and magnitudes whose g − r is 2 z, with 0.05 mag of noise."""
    rows = toy_spectra.labelled(n, seed, noise)
    rng = np.random.default_rng([seed, 1])
    r = 18 + 3 * np.sqrt(rows.z) + rng.normal(0, 0.5, n)
    mag = np.stack([r + 2 * rows.z, r, r - rows.z], axis=1) + rng.normal(0, 0.05, (n, 3))
    return LabelledBatch(Joint({"photometry": photometry(mag), "spectrum": rows.batch}), rows.z, rows.weight)
