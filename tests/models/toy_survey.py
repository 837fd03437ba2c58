"""A small synthetic survey for the tests of models: one color follows redshift, with noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.pdf.grid import Grid

BANDS = ("g", "r", "i")
GRID = Grid(0.0, 2.0, 201)
CONTEXT = ModelContext((PhotometryKind(BANDS, 1),), GRID, seed=3)


def with_filters(*filters: str) -> ModelContext:
    """The survey with the filter curves of its first bands."""
    kind = PhotometryKind(BANDS, 1, filters=dict(zip(BANDS, filters, strict=False)))
    return replace(CONTEXT, inputs=(kind,))


def photometry(mag: np.ndarray) -> Photometry:
    """Fully measured rows with errors of 0.05 mag."""
    n = len(mag)
    return Photometry(
        bands=BANDS,
        mag=mag.astype(np.float32),
        magerr=np.full(mag.shape, 0.05, np.float32),
        maglim=np.full(mag.shape, np.nan, np.float32),
        undetected=np.zeros(n, np.int32),
        unobserved=np.zeros(n, np.int32),
        imputed=np.zeros(n, np.int32),
        ebv=np.full(n, np.nan, np.float32),
        extra=np.zeros((n, 0), np.float32),
        reference=1,
    )


def labelled(n: int, seed: int) -> LabelledBatch:
    """Rows whose g − r is z, up to 0.05 mag of noise per band."""
    rng = np.random.default_rng(seed)
    z = rng.gamma(4.0, 0.15, n).clip(0.01, 1.9)
    r = 18 + 3 * np.sqrt(z) + rng.normal(0, 1, n)
    mag = np.stack([r + z, r, r - 0.5 * z], axis=1) + rng.normal(0, 0.05, (n, 3))
    return LabelledBatch(photometry(mag), z, np.ones(n))


def sample_table(n: int, seed: int, positions: bool = True, weight: np.ndarray | None = None) -> pa.Table:
    """The same rows as a table of `sample/`, one in ten with an imputed band."""
    rows = labelled(n, seed)
    per_band = {
        f"{kind}_{band}": getattr(rows.batch, kind)[:, number]
        for kind in ("mag", "magerr", "maglim")
        for number, band in enumerate(BANDS)
    }
    imputed = np.where(np.arange(n) % 10 == 0, 1, 0).astype(np.int32)
    columns = {
        "object_id": np.arange(n) + 1000 * seed,
        **per_band,
        "undetected": imputed,
        "unobserved": np.zeros(n, np.int32),
        "imputed": imputed,
        "redshift": rows.z,
        "weight": rows.weight if weight is None else weight,
    }
    if positions:
        columns["_healpix_29"] = np.sort(np.random.default_rng(seed).integers(0, 12 * 4**29, n))
    return pa.table(columns)
