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
from zmill.models import base, ood
from zmill.models.base import Context, Labelled
from zmill.models.trained import TrainedModel
from zmill.pdf import arrow, compact, conformal, points
from zmill.pdf.calibration import Calibration, Local
from zmill.pdf.conformal import Conformal
from zmill.pdf.grid import Grid
from zmill.predict import infer
from zmill.predict.infer import Inference
from zmill.survey.photometry import Photometry

GRID = Grid(0.0, 3.0, 301)
INTERVALS = Conformal((22.0, 24.0), ((0.5, 0.9), (0.7, 0.97), (0.6, 1.0), (1.0, 1.0)))
"""Two edges of bins; the faintest rows, and those without a magnitude, get whole grids."""


class Line(base.Model):
    """A Gaussian around a linear combination of the magnitudes; NaN where a band has none."""

    Settings = base.Settings

    def fit(self, train: Labelled, valid: Labelled, device: torch.device, say: Callable[[str], None]) -> dict[str, Any]:
        return {}

    def refit(self, rows: Labelled, device: torch.device, say: Callable[[str], None]) -> None:
        pass

    def predict(self, batch: Photometry) -> Tensor:
        mean = 1.5 + 0.2 * torch.as_tensor((batch.mag @ np.array([1, -1, 1, -1, 1, -1])).astype(np.float32))
        z = self.context.grid.tensor()
        return self.context.grid.normalize(torch.exp(-0.5 * ((z - mean[:, None]) / 0.1) ** 2))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, {}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        pass


class Bell(Line, base.LocatedModel):
    """The same as two numbers, far from the grid and very narrow for some rows."""

    def locate(self, batch: Photometry) -> tuple[Tensor, Tensor]:
        mean = torch.as_tensor((batch.mag @ np.array([1, -1, 1, -1, 1, -1])).astype(np.float32))
        return 1.5 + 0.5 * mean, torch.as_tensor(batch.mag[:, 3] - 26).clamp(-6, 2)

    def density_at(self, place: Tensor, log_width: Tensor) -> Tensor:
        z = self.context.grid.tensor()
        return self.context.grid.normalize(torch.exp(-0.5 * ((z - place[:, None]) / log_width.exp()[:, None]) ** 2))

    predict = base.LocatedModel.predict


@pytest.fixture(scope="module")
def line() -> TrainedModel:
    model = Line(base.Settings(), Context(BANDS, 3, GRID, seed=1))
    train = Photometry.from_arrow(clean_rows(Partition(4, 7), 2000), BANDS)
    return TrainedModel("line", "line", model, Calibration(), INTERVALS, ood.fit(train, 3, 1))


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def batch_of(rows: int, seed: int = 0) -> pa.RecordBatch:
    return clean_rows(Partition(4, 7), rows, seed).combine_chunks().to_batches()[0]


def numbers(model: TrainedModel, rows: Photometry, density: Tensor, sure: NDArray[np.bool_]) -> dict[str, Tensor]:
    """Point estimates and ends of intervals of some rows, from their densities."""
    contents = np.array(INTERVALS.contents)[model.interval_bins(rows).numpy()]
    half = torch.as_tensor(np.where(contents < 1, contents / 2, 1)[sure])
    own = torch.cat([0.5 - half.flip(1), 0.5 + half], 1).float()
    found, z = points.summarize_with(density[sure], GRID, points.LEVELS, own)
    return found | dict(zip(conformal.COLUMNS, z[:, len(points.LEVELS) :].unbind(1), strict=True))


def values(batch: pa.RecordBatch, column: str) -> NDArray[Any]:
    return batch.column(column).to_numpy(zero_copy_only=False)


@pytest.mark.parametrize("kind", ["none", "compact", "full"])
def test_every_row_is_what_the_model_says_of_it(line: TrainedModel, pool: ThreadPoolExecutor, kind: str) -> None:
    batch = batch_of(2 * infer.CPU_DENSITIES + 17)
    out = Inference(line, kind, pool)(batch)()
    rows = Photometry.from_arrow(batch, BANDS)
    density = line.predict(rows)
    sure = torch.isfinite(density).all(1).numpy()
    assert 0.2 < sure.mean() < 1
    expected = numbers(line, rows, density, sure)
    for name in infer.COLUMNS:
        assert out[0].schema.field(name).type == pa.float32()
        np.testing.assert_allclose(
            values(out[0], name)[sure], expected[name].numpy(), atol=2e-4
        )  # a narrow z_std at the grid's end
    np.testing.assert_array_equal(values(out[0], "ood")[sure], line.ood(rows)[sure])
    for column in ("_healpix_29", "object_id", "ra", "dec"):
        assert all(part.column(column) == batch.column(column) for part in out)
    if kind == "none":
        assert len(out) == 1
        return
    pdf = arrow.stored(out[1]).numpy()
    if kind == "compact":
        np.testing.assert_allclose(pdf[sure], compact.encode(density[sure], GRID).numpy(), rtol=0, atol=2)
    else:
        np.testing.assert_allclose(pdf[sure].astype(np.float32), density[sure].numpy(), rtol=2e-3, atol=1e-4)


def test_flags_say_what_the_masks_say(line: TrainedModel, pool: ThreadPoolExecutor) -> None:
    batch = batch_of(3000)
    (photoz,) = Inference(line, "none", pool)(batch)()
    flags, mode = values(photoz, "flags"), values(photoz, "z_mode")
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
    }
    for bit, holds in expected.items():
        np.testing.assert_array_equal(flags & bit != 0, holds)
    assert all(holds.any() for bit, holds in expected.items() if bit != 32)
    assert flags.max() < 128


@pytest.mark.parametrize("kind", ["compact", "full"])
def test_rows_without_any_band_get_a_flat_density_and_flags_but_never_nan(
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
    assert (values(photoz, "z_c160") == 0).all() and (values(photoz, "z_c840") == 3).all()
    np.testing.assert_allclose(values(photoz, "z_median"), 1.5, atol=1e-3)
    np.testing.assert_allclose(values(photoz, "z_std"), 3 / np.sqrt(12), rtol=1e-3)
    assert (values(photoz, "flags") & (infer.OOD | infer.FEW_BANDS) == infer.OOD | infer.FEW_BANDS).all()
    assert np.isfinite(arrow.stored(pdf).numpy().astype(float)).all()


def test_a_catalogue_without_cuts_and_limits_is_enough(line: TrainedModel, pool: ThreadPoolExecutor) -> None:
    table = clean_rows(Partition(4, 7), 50).drop_columns(["cut", "ebv", *(f"maglim_{band}" for band in BANDS)])
    (photoz,) = Inference(line, "none", pool)(table.to_batches()[0])()
    assert photoz.num_rows == 50
    assert not (values(photoz, "flags") & infer.FAILS_CUT).any()


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(1.25),
        Calibration(0.75, (0.05, 0.4, 0.25, 0.3)),
        Calibration(0.75, (0.05, 0.4, 0.25, 0.3), Local(((0.2, 0.0, 0.0, -0.2),) * 2, (1.5, -2.0), (0.5, 1.0))),
    ],
)
def test_what_is_looked_up_in_a_table_is_what_the_density_says(
    line: TrainedModel, pool: ThreadPoolExecutor, calibration: Calibration
) -> None:
    model = TrainedModel("bell", "bell", Bell(base.Settings(), line.context), calibration, INTERVALS, line.domain)
    batch = batch_of(5000)
    rows = Photometry.from_arrow(batch, BANDS)
    photoz, pdf = Inference(model, "compact", pool)(batch)()
    (alone,) = Inference(model, "none", pool)(batch)()
    density = model.predict(rows)
    place, log_width = (value.numpy() for value in model.model.locate(rows))  # type: ignore[attr-defined]
    sure = np.isfinite(place + log_width)
    assert ((place[sure] < 0) | (place[sure] > 3)).mean() > 0.02
    assert (log_width[sure] < np.log(0.01)).mean() > 0.02
    codes = compact.encode(density[sure], GRID)
    expected = numbers(model, rows, density, sure)
    for name in infer.COLUMNS:
        np.testing.assert_allclose(values(photoz, name)[sure], expected[name].numpy(), atol=2e-3, err_msg=name)
        np.testing.assert_allclose(values(alone, name), values(photoz, name), atol=1e-4)
        assert np.isfinite(values(photoz, name)).all()
    off = arrow.stored(pdf).numpy()[sure].astype(float) - codes.numpy().astype(float)
    assert np.abs(off).max() * 3 / 65535 < 0.5 * GRID.step
    assert (values(photoz, "z_median")[~sure] == 1.5).all()
