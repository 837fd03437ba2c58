"""RAIL's estimators on the rows of a sample, each in processes of its own with the Python of the peers' environment (peers.sh).

RAIL's settings are its defaults. A survey in LSST's filters has the column names, limits and filters that RAIL knows them by.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.photometry.batch import Photometry, bits
from zmill.inputs.photometry.kind import PhotometryKind

PROGRAM = Path(__file__).with_name("rail_peer.py")
LEARNERS = ("knn", "flexzboost", "cmnn", "nn")
"""Estimators that learn from photometry with redshifts, and need the names of the bands alone."""
UNDETECTED, UNOBSERVED = 99.0, -99.0
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"), "1")


@dataclass(frozen=True)
class Answer:
    """What an estimator says and costs.

    density : (n, grid.size) float32, each row integrating to 1; None where the PDFs went to a file.
    inform, estimate : `seconds` of one processor, `wall_seconds`, `peak_gib` of the process. `estimate` has `grid_seconds` too,
        for asking RAIL's own form of the densities for their values on the grid.
    """

    density: Tensor | None
    inform: dict[str, float]
    estimate: dict[str, float]


def rail(
    environment: Path,
    estimator: str,
    train: LabelledBatch,
    test: LabelledBatch,
    context: ModelContext,
    repeats: int = 1,
    files: bool = False,
) -> Answer:
    """Inform an estimator with training rows and apply it to test rows, on one thread.

    Parameters
    ----------
    estimator : of `rail_peer.ESTIMATORS`.
    repeats : times that it is applied; the cheapest counts.
    files : from file to file, chunk by chunk, as RAIL does in production, instead of in memory.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, rows in (("train", train), ("test", test)):
            write(folder / f"{name}.hdf5", rows, context, estimator)
        job = {
            "estimator": estimator,
            "settings": settings(train.batch, context),
            "train": str(folder / "train.hdf5"),
            "test": str(folder / "test.hdf5"),
            "model": str(folder / "model.pkl"),
            "grid": [context.grid.z_min, context.grid.z_max, context.grid.size],
            "repeats": repeats,
            "files": files,
            "out": str(folder),
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        inform, estimate = (_run(environment, kind, folder) for kind in ("inform", "estimate"))
        density = (
            None if files else context.grid.normalize(torch.from_numpy(np.load(folder / "density.npy")).clamp_min(0))
        )
        return Answer(density, inform, estimate)


def _run(environment: Path, kind: str, folder: Path) -> dict[str, float]:
    command = [str(environment / "bin" / "python"), "-P", str(PROGRAM), kind, str(folder / "job.json")]
    found = subprocess.run(
        command, cwd=folder, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{found.stdout[-2000:]}\n{found.stderr[-4000:]}")
    cost: dict[str, float] = json.loads((folder / f"{kind}.json").read_text(encoding="utf-8"))
    return cost


def suffix(context: ModelContext) -> str:
    """`_lsst` for a survey in LSST's filters: RAIL then knows limits and filter curves by the names of the columns."""
    filters = context.of(PhotometryKind).filters
    return "_lsst" if filters and all(name.startswith("lsst") for name in filters.values()) else ""


def settings(train: Photometry, context: ModelContext) -> dict[str, Any]:
    """The settings in which the survey is not RAIL's default one.

    A limit that RAIL puts in place of a non-detection is the median of the known ones, or the faintest training row.
    """
    if suffix(context):
        return {}
    limits = np.array(
        [np.median(known) if len(known := limit[np.isfinite(limit)]) else np.nan for limit in train.maglim.T]
    )
    faintest = np.where(train.measured, train.mag, 0).max(0)
    columns, errors = ([f"{kind}_{band}" for band in context.of(PhotometryKind).bands] for kind in ("mag", "mag_err"))
    return {
        "bands": columns,
        "err_bands": errors,
        "ref_band": columns[context.of(PhotometryKind).reference],
        "mag_limits": dict(zip(columns, map(float, np.where(np.isfinite(limits), limits, faintest)), strict=True)),
    }


def write(path: Path, rows: LabelledBatch, context: ModelContext, estimator: str) -> None:
    """A table as RAIL reads it: 99 is a non-detection, its error the limit.

    Of a band that was not observed the template fit is told so (-99), color matching leaves it out as it does a non-detection, and
    the others, which have no notion of it, get the magnitude that zmill imputed.
    """
    photometry, number = rows.batch, len(context.of(PhotometryKind).bands)
    undetected, unobserved = bits(photometry.undetected, number), bits(photometry.unobserved, number)
    filled = np.where(np.isfinite(photometry.mag), photometry.mag, UNDETECTED)
    absent = {"bpz": UNOBSERVED, "cmnn": UNDETECTED}.get(estimator, filled)
    mag = np.where(undetected, UNDETECTED, np.where(unobserved, absent, filled))
    error = np.where(undetected, photometry.maglim, photometry.magerr)
    with h5py.File(path, "w") as file:
        group = file.create_group("photometry")
        for b, band in enumerate(context.of(PhotometryKind).bands):
            group[f"mag_{band}{suffix(context)}"] = mag[:, b].astype(np.float32)
            group[f"mag_err_{band}{suffix(context)}"] = np.nan_to_num(error[:, b], nan=1.0).astype(np.float32)
        group["redshift"] = rows.z
