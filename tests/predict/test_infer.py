"""Points, flags and PDFs of a batch: against the model called by hand, and whatever rows it is given never NaN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from predict_sky import BANDS, clean_rows
from torch import Tensor

from zmill.catalog.hats import Partition
from zmill.inputs.base import FAILS_CUT, NO_REDSHIFT, OOD, LabelledBatch, ModelContext
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.flags import FEW_BANDS
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.models import base
from zmill.pdf import arrow, compact, conformal, points
from zmill.pdf.calibration import Calibration, Local
from zmill.pdf.conformal import Conformal
from zmill.pdf.grid import Grid
from zmill.pdf.odds import Odds
from zmill.predict import infer
from zmill.predict.infer import Inference
from zmill.training import out_of_distribution
from zmill.training.prior import Prior
from zmill.training.trained import TrainedModel

GRID = Grid(0.0, 3.0, 301)
INTERVALS = Conformal((22.0, 24.0), ((0.5, 0.9), (0.7, 0.97), (0.6, 1.0), (1.0, 1.0)))
"""Two edges of bins; the faintest rows, and those without a magnitude, get whole grids."""
ODDS = Odds(0.04, 0.8, 0.6, 0.3)
N_OF_Z = torch.exp(-0.5 * ((GRID.tensor() - 0.8) / 0.3) ** 2) + 0.5 * torch.exp(
    -0.5 * ((GRID.tensor() - 2.0) / 0.2) ** 2
)
PRIOR = Prior(
    GRID.normalize(N_OF_Z[None])[0],
    (*(0.1 * (band + 1) for band in range(len(BANDS))), 0.25, 1.0),
    (*((0.7, 0.96) for _ in BANDS), (0.8, 1.0), (0.68, 0.95)),
)
"""A density of two peaks, and another share of it for each band that may be the only one."""


class Line(base.Model):
    """A Gaussian around a linear combination of the magnitudes; NaN where a band has none."""

    Settings = base.Settings

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, say: Callable[[str], None]
    ) -> dict[str, Any]:
        return {}

    def refit(self, rows: LabelledBatch, device: torch.device, say: Callable[[str], None]) -> None:
        pass

    def predict(self, batch: Photometry) -> Tensor:
        mean = 1.5 + 0.2 * torch.as_tensor((batch.mag @ np.array([1, -1, 1, -1, 1, -1])).astype(np.float32))
        z = self.context.grid.tensor()
        return self.context.grid.normalize(torch.exp(-0.5 * ((z - mean[:, None]) / 0.1) ** 2))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, {}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        pass


class Bell(Line, base.LocationScaleModel):
    """The same as two numbers, far from the grid and very narrow for some rows."""

    def loc_scale(self, batch: Photometry) -> tuple[Tensor, Tensor]:
        mean = torch.as_tensor((batch.mag @ np.array([1, -1, 1, -1, 1, -1])).astype(np.float32))
        return 1.5 + 0.5 * mean, torch.as_tensor(batch.mag[:, 3] - 26).clamp(-6, 2)

    def density_at(self, loc: Tensor, log_scale: Tensor) -> Tensor:
        z = self.context.grid.tensor()
        return self.context.grid.normalize(torch.exp(-0.5 * ((z - loc[:, None]) / log_scale.exp()[:, None]) ** 2))

    predict = base.LocationScaleModel.predict


@pytest.fixture(scope="module")
def line() -> TrainedModel:
    model = Line(base.Settings(), ModelContext((PhotometryKind(BANDS, 3),), GRID, seed=1))
    train = Photometry.from_arrow(clean_rows(Partition(4, 7), 2000), BANDS)
    detector = out_of_distribution.fit(train, 1)
    return TrainedModel("line", "line", model, Calibration(), INTERVALS, ODDS, detector, PRIOR)


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def batch_of(rows: int, seed: int = 0) -> pa.RecordBatch:
    return clean_rows(Partition(4, 7), rows, seed).combine_chunks().to_batches()[0]


def with_few_bands(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows, some with one band measured and some with none; imputed values of the others stay in half of them."""
    number = np.arange(batch.num_rows)
    lost = np.where(number % 40 == 7, 63 & ~(1 << number // 40 % 6), np.where(number % 40 == 11, 63, 0)).astype(
        np.int32
    )
    filled = (number // 40 % 2 == 0) & (number % 40 == 7)
    table = pa.table(batch)
    for name in ("unobserved", "imputed"):
        mask = values(batch, name) | np.where(filled | (name == "unobserved"), lost, 0)
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(mask.astype(np.int32)))
    for b, band in enumerate(BANDS):
        gone = (lost >> b & 1 == 1) & ~filled
        mag = np.where(gone, np.float32(np.nan), np.where(lost > 0, np.float32(23), values(batch, f"mag_{band}")))
        table = table.set_column(table.schema.get_field_index(f"mag_{band}"), f"mag_{band}", pa.array(mag))
    return table.combine_chunks().to_batches()[0]


def numbers(model: TrainedModel, rows: Photometry) -> tuple[dict[str, Tensor], Tensor, NDArray[np.bool_]]:
    """Point estimates and ends of intervals, densities, and whether rows are out of distribution, one row after another."""
    density, levels, far, own = model.predict_all(rows)
    found, z = points.summarize_with(density, GRID, points.LEVELS, levels, ODDS.width)
    found["odds"] = torch.where(torch.from_numpy(own), ODDS(found["odds"]), found["odds"])
    return found | dict(zip(conformal.COLUMNS, z[:, len(points.LEVELS) :].unbind(1), strict=True)), density, far


def values(batch: pa.RecordBatch, column: str) -> NDArray[Any]:
    return batch.column(column).to_numpy(zero_copy_only=False)


@pytest.mark.parametrize("kind", ["none", "compact", "full"])
def test_every_row_is_what_the_model_says_of_it(line: TrainedModel, pool: ThreadPoolExecutor, kind: str) -> None:
    batch = with_few_bands(batch_of(2 * infer.CPU_DENSITIES + 17))
    out = Inference(line, kind, pool)(batch)()
    rows = Photometry.from_arrow(batch, BANDS)
    expected, density, far = numbers(line, rows)
    kinds = line.kinds(rows)[1]
    assert {*range(len(BANDS)), len(BANDS), PRIOR.nothing, -1} == set(np.unique(kinds))
    lost = ~np.isfinite(line.model.predict(rows).numpy()).all(1)
    assert 0.2 < lost.mean() < 0.8
    assert far[lost].all() and not far[~lost].all()
    for name in infer.COLUMNS:
        assert out[0].schema.field(name).type == pa.float32()
        np.testing.assert_allclose(
            values(out[0], name), expected[name].numpy(), atol=2e-4, err_msg=name
        )  # a narrow z_std at the grid's end
    np.testing.assert_array_equal(values(out[0], "ood"), far)
    for column in ("_healpix_29", "object_id", "ra", "dec"):
        assert all(part.column(column) == batch.column(column) for part in out)
    if kind == "none":
        assert len(out) == 1
        return
    pdf = arrow.stored(out[1]).numpy()
    if kind == "compact":
        np.testing.assert_allclose(pdf, compact.encode(density, GRID).numpy(), rtol=0, atol=16)
    else:
        np.testing.assert_allclose(pdf.astype(np.float32), density.numpy(), rtol=2e-3, atol=1e-4)


def test_flags_say_what_the_masks_say(line: TrainedModel, pool: ThreadPoolExecutor) -> None:
    batch = with_few_bands(batch_of(3000))
    (photoz,) = Inference(line, "none", pool)(batch)()
    flags, mode = values(photoz, "flags"), values(photoz, "z_mode")
    rows = Photometry.from_arrow(batch, BANDS)
    measured = np.stack(
        [
            ~((values(batch, "undetected") | values(batch, "unobserved") | values(batch, "imputed")) >> b & 1).astype(
                bool
            )
            & np.isfinite(values(batch, f"mag_{band}"))
            for b, band in enumerate(BANDS)
        ]
    ).sum(0)
    expected = {
        1: values(batch, "cut") != 0,
        2: values(batch, "imputed") != 0,
        4: values(batch, "undetected") != 0,
        8: values(batch, "unobserved") != 0,
        16: values(photoz, "ood"),
        32: measured < 2,
        64: (mode < 0.01) | (mode > 2.99),
        512: (values(photoz, "odds") < 0.5) | (measured == 0) | ~np.isfinite(line.model.predict(rows).numpy()).all(1),
    }
    for bit, holds in expected.items():
        np.testing.assert_array_equal(flags & bit != 0, holds)
    assert all(holds.any() for holds in expected.values())
    assert flags.max() < 1024


@pytest.mark.parametrize("kind", ["compact", "full"])
def test_rows_without_any_band_get_the_n_of_z_and_flags_but_never_nan(
    line: TrainedModel, pool: ThreadPoolExecutor, kind: str
) -> None:
    table = clean_rows(Partition(4, 7), 40)
    for name in table.schema.names:
        number = table.schema.get_field_index(name)
        if name.startswith("mag"):
            table = table.set_column(number, name, pa.array(np.full(40, np.nan, np.float32)))
        if name in ("imputed", "undetected"):
            table = table.set_column(number, name, pa.array(np.zeros(40, np.int32)))
        if name == "unobserved":
            table = table.set_column(number, name, pa.array(np.full(40, 63, np.int32)))
    photoz, pdf = Inference(line, kind, pool)(table.to_batches()[0])()
    for name in infer.COLUMNS:
        assert np.isfinite(values(photoz, name)).all()
    expected = points.summarize_with(PRIOR.density[None], GRID, points.LEVELS, width=ODDS.width)[0]
    for name in points.COLUMNS:
        np.testing.assert_allclose(values(photoz, name), expected[name].expand(40), atol=2e-4, err_msg=name)
    np.testing.assert_allclose(values(photoz, "z_c160"), expected["z_p160"].expand(40), atol=2e-3)
    assert values(photoz, "ood").all()
    assert (values(photoz, "flags") & (OOD | FEW_BANDS | NO_REDSHIFT) == OOD | FEW_BANDS | NO_REDSHIFT).all()
    assert np.isfinite(arrow.stored(pdf).numpy().astype(float)).all()


def test_a_catalogue_without_cuts_and_limits_is_enough(line: TrainedModel, pool: ThreadPoolExecutor) -> None:
    table = clean_rows(Partition(4, 7), 50).drop_columns(["cut", "ebv", *(f"maglim_{band}" for band in BANDS)])
    (photoz,) = Inference(line, "none", pool)(table.to_batches()[0])()
    assert photoz.num_rows == 50
    assert not (values(photoz, "flags") & FAILS_CUT).any()


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(1.25),
        Calibration(0.75, (0.05, 0.4, 0.25, 0.3)),
        Calibration(0.75, (0.05, 0.4, 0.25, 0.3), Local(((0.2, 0.0, 0.0, -0.2),) * 2, (1.5, -2.0), (0.5, 1.0))),
    ],
)
def test_the_table_agrees_with_the_density(
    line: TrainedModel, pool: ThreadPoolExecutor, calibration: Calibration
) -> None:
    model = TrainedModel(
        "bell", "bell", Bell(base.Settings(), line.context), calibration, INTERVALS, ODDS, line.detector, PRIOR
    )
    batch = with_few_bands(batch_of(5000))
    rows = Photometry.from_arrow(batch, BANDS)
    photoz, pdf = Inference(model, "compact", pool)(batch)()
    (alone,) = Inference(model, "none", pool)(batch)()
    expected, density, far = numbers(model, rows)
    loc, log_scale = (value.numpy() for value in model.model.loc_scale(rows))  # type: ignore[attr-defined]
    sure = np.isfinite(loc + log_scale)
    assert ((loc[sure] < 0) | (loc[sure] > 3)).mean() > 0.02
    assert (log_scale[sure] < np.log(0.01)).mean() > 0.02
    codes = compact.encode(density, GRID)
    for name in infer.COLUMNS:
        np.testing.assert_allclose(values(photoz, name)[sure], expected[name].numpy()[sure], atol=2e-3, err_msg=name)
        np.testing.assert_allclose(values(alone, name), values(photoz, name), atol=1e-4)
        assert np.isfinite(values(photoz, name)).all()
    np.testing.assert_array_equal(values(photoz, "ood"), far)
    off = arrow.stored(pdf).numpy()[sure].astype(float) - codes.numpy()[sure].astype(float)
    assert np.abs(off).max() * 3 / 65535 < 0.5 * GRID.step
    lost = points.summarize(PRIOR.density[None], GRID)["z_median"].numpy()
    np.testing.assert_allclose(values(photoz, "z_median")[~sure], lost.repeat((~sure).sum()), atol=1e-4)
