"""A small set of stamps for the tests of models: round galaxies that are smaller and redder at higher redshift."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.image.batch import Images, aperture_sn, good_fraction, good_pixels
from zmill.inputs.image.kind import ImageKind
from zmill.pdf.grid import Grid

BANDS, SIZE = ("g", "r", "i"), 16
GRID = Grid(0.0, 0.4, 81)
IMAGE = ImageKind(BANDS, SIZE, 0.4)
CONTEXT = ModelContext((IMAGE,), GRID, seed=3)


def labelled(n: int, seed: int, noise: float = 0.05) -> LabelledBatch:
    """Stamps with so much noise in units of the central surface brightness, at redshifts between 0 and 0.4."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.01, 0.39, n)
    offset = np.arange(SIZE) - (SIZE - 1) / 2
    width = 3.5 - 5 * z + rng.normal(0, 0.1, n)
    profile = np.exp(-0.5 * (offset[:, None] ** 2 + offset[None] ** 2) / width[:, None, None] ** 2)
    color = np.stack([1 - 1.5 * z, np.ones(n), 1 + 1.5 * z], 1) * rng.uniform(0.7, 1.4, (n, 1))
    flux = color[:, :, None, None] * profile[:, None] + noise * rng.normal(size=(n, 3, SIZE, SIZE))
    return LabelledBatch(stamps(flux.astype(np.float32), noise), z, np.ones(n))


def stamps(flux: np.ndarray, noise: float) -> Images:
    """Stamps of fluxes (n, bands, N, N) and one error."""
    n = len(flux)
    ivar = np.full((n, len(BANDS), 1, 1), 1 / noise**2, np.float32)
    good = good_fraction(good_pixels(flux, ivar))
    psf, ebv = np.full((n, len(BANDS)), 1.1, np.float32), np.full(n, 0.02, np.float32)
    return Images(flux, ivar, psf, aperture_sn(flux, ivar), good, np.zeros(n, np.bool_), ebv, BANDS, SIZE, 0.4)


def without(batch: Images) -> Images:
    """The rows without their stamps."""
    return batch.with_pixels(np.zeros_like(batch.flux), np.zeros_like(batch.ivar))


def sample_table(n: int, seed: int) -> pa.Table:
    """The same rows as a table of `sample/`."""
    rows = labelled(n, seed)

    def lists(values: np.ndarray) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values[0].size)

    own = rows.batch
    columns = {"image": lists(own.flux), "image_ivar": lists(own.ivar), "image_psf": lists(own.psf)}
    plain = {"image_sn": own.sn, "image_good": own.good, "image_edge": own.edge, "ebv": own.ebv}
    return pa.table({**columns, **plain, "redshift": rows.z, "weight": rows.weight})
