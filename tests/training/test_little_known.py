"""Every model type predicts rows with little or no photometry: n(z), and intervals that hold."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
import torch
from test_prior import covered

from models.contract import CPU, PHOTOMETRIC, QUICK
from models.toy_survey import BANDS, GRID, labelled, with_filters
from zmill.inputs.base import OOD, LabelledBatch
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.flags import FEW_BANDS
from zmill.inputs.photometry.missing_bands import BandRemoval, MissingPattern
from zmill.models.registry import model_class
from zmill.pdf import arrow, compact, points
from zmill.pdf.histogram import n_of_z
from zmill.predict.infer import Inference
from zmill.training.trained import TrainedModel, fit_and_calibrate

REMOVAL = BandRemoval(np.full(3, 25.0, np.float32), None)
TRAIN = labelled(500, 1)


@cache
def trained(type_: str) -> TrainedModel:
    settings = model_class(type_).Settings.model_validate(QUICK[type_])
    rows = TRAIN, labelled(200, 2), labelled(500, 3)
    context = with_filters("sdss2010-g", "sdss2010-r", "sdss2010-i")
    return fit_and_calibrate(type_, type_, settings, context, *rows, CPU, lambda line: None)


def none_measured(rows: Photometry) -> Photometry:
    """Unobserved in all bands, or undetected in some or all of them."""
    number = np.arange(len(rows), dtype=np.int32) % 8
    maglim = np.where((number[:, None] >> np.arange(3)) & 1, np.float32(24), np.float32(np.nan))
    empty = np.full(rows.mag.shape, np.nan, np.float32)
    return replace(rows, mag=empty, magerr=empty, maglim=maglim, undetected=number, unobserved=7 & ~number)


def clean_batch(rows: Photometry) -> pa.RecordBatch:
    """The columns of `clean/`."""
    n = len(rows)
    columns = {"_healpix_29": np.arange(n), "object_id": np.arange(n), "ra": np.zeros(n), "dec": np.zeros(n)}
    for name in ("mag", "magerr", "maglim"):
        columns |= {f"{name}_{band}": getattr(rows, name)[:, b] for b, band in enumerate(BANDS)}
    columns |= {name: getattr(rows, name) for name in ("undetected", "unobserved", "imputed", "ebv")}
    return pa.table(columns).to_batches()[0]


@pytest.mark.parametrize("type_", PHOTOMETRIC)
def test_rows_without_a_measured_band_have_the_n_of_z_and_are_out_of_distribution(type_: str) -> None:
    model, rows = trained(type_), none_measured(labelled(40, 4).batch)
    expected = n_of_z(TRAIN.z, TRAIN.weight, GRID)
    density, _, far, _ = model.predict_all(rows)
    assert torch.equal(density, expected.expand(40, -1))
    assert far.all() and model.ood(rows).all()
    with ThreadPoolExecutor(1) as pool:
        for kind in ("none", "compact", "full"):
            photoz, *stored = Inference(model, kind, pool)(clean_batch(rows))()
            numbers = points.summarize(expected[None], GRID)
            for name, value in numbers.items():
                np.testing.assert_allclose(photoz.column(name).to_numpy(), float(value), atol=1e-3, err_msg=name)
            assert photoz.column("ood").to_numpy(zero_copy_only=False).all()
            flags = photoz.column("flags").to_numpy()
            assert (flags & (OOD | FEW_BANDS) == OOD | FEW_BANDS).all()
            for pdf in stored:
                values = arrow.densities(pa.table(pdf))[0]
                told = (
                    compact.decode(compact.encode(expected[None], GRID), GRID) if kind == "compact" else expected[None]
                )
                torch.testing.assert_close(values, told.expand(40, -1), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("type_", PHOTOMETRIC)
def test_intervals_of_rows_with_one_band_hold_the_true_redshift_as_often_as_is_stated(type_: str) -> None:
    model, test = trained(type_), labelled(1500, 5)
    for band, name in enumerate(BANDS):
        lost = MissingPattern(f"only {name}", tuple(b for b in range(3) if b != band))
        rows = LabelledBatch(REMOVAL.apply(test.batch, lost), test.z, test.weight)
        density, levels, *_ = model.predict_all(rows.batch)
        for coverage, (own, stated) in covered(density, levels, test.z).items():
            assert stated > coverage - 0.06, (name, coverage, stated)
            assert own > coverage - 0.1, (name, coverage, own)  # 500 training rows alone make an error of 0.03
