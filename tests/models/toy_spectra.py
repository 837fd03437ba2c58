"""A small set of spectra for the tests of models: a continuum with a break and three emission lines, shifted by the redshift."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.spectrum.batch import Spectra
from zmill.inputs.spectrum.grid import WavelengthGrid
from zmill.inputs.spectrum.kind import SpectrumKind
from zmill.pdf.grid import Grid

GRID = Grid(0.0, 0.6, 121)
WAVELENGTHS = WavelengthGrid("log10", start=3.6, step=3e-3, pixels=120)
CONTEXT = ModelContext((SpectrumKind(WAVELENGTHS),), GRID, seed=3)
LINES = (3727.0, 4959.0, 6563.0)


def labelled(n: int, seed: int, noise: float = 0.05) -> LabelledBatch:
    """Spectra of signal-to-noise ratio `1 / noise` at redshifts between 0 and 0.6, one pixel in fifty masked."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.01, 0.59, n)
    rest = WAVELENGTHS.wavelength[None] / (1 + z[:, None])
    flux = 1 + 0.5 * np.tanh((rest - 4000) / 100) + 0.2 * rng.normal(size=(n, 1)) * (rest / 5000 - 1)
    for line in LINES:
        flux += rng.uniform(0.3, 2, (n, 1)) * np.exp(-0.5 * ((rest - line) / 25) ** 2)
    flux = (flux + noise * rng.normal(size=flux.shape)) * rng.uniform(0.5, 2, (n, 1))
    ivar = np.where(rng.random(flux.shape) < 0.02, 0.0, 1 / noise**2)
    return LabelledBatch(Spectra.of(flux.astype(np.float32), ivar.astype(np.float32), WAVELENGTHS), z, np.ones(n))


def sample_table(n: int, seed: int) -> pa.Table:
    """The same rows as a table of `sample/`."""
    rows = labelled(n, seed)
    lists = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(getattr(rows.batch, name).ravel()), len(WAVELENGTHS))
        for name in ("flux", "ivar")
    }
    return pa.table({**lists, "redshift": rows.z, "weight": rows.weight})
