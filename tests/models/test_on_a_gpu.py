"""On a GPU: the same seed gives the same model to the bit, a model says there what it says on the processor, and a batch is sent
whole and not waited for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from models.contract import CPU, PHOTOMETRIC, QUICK, toy
from models.toy_survey import CONTEXT, labelled, sample_table, with_filters
from zmill.models import registry
from zmill.networks.device import reproducible
from zmill.pdf import arrow, grid
from zmill.predict.infer import Inference, _Few
from zmill.training.trained import TrainedModel, fit_and_calibrate

WITH_FILTERS = with_filters("sdss2010-g", "sdss2010-r", "sdss2010-i")
GPU = torch.device("cuda")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@cache
def trained_here(type_: str) -> TrainedModel:
    """Trained on the processor; tests send copies of it to a device."""
    return trained_on(type_, CPU)


def trained_on(type_: str, device: torch.device) -> TrainedModel:
    quick = registry.model_class(type_).Settings.model_validate(QUICK[type_])
    context = WITH_FILTERS if type_ in PHOTOMETRIC else toy(type_).CONTEXT
    rows = (toy(type_).labelled(n, seed) for seed, n in enumerate((400, 200, 150), 1))
    with reproducible():
        return fit_and_calibrate(type_, type_, quick, context, *rows, device, lambda line: None)


def predicted(model: TrainedModel, rows: pa.Table) -> tuple[pa.RecordBatch, ...]:
    with ThreadPoolExecutor(1) as pool:
        return Inference(model, "compact", pool)(rows.combine_chunks().to_batches()[0])()


class Operations(TorchDispatchMode):
    """Counts what a device is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += 1
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("type_", ["cmnn", "ensemble", "gbdt", "knn", "nca", "resmlp", "template", "trainz"])
def test_a_batch_is_predicted_without_waiting_for_the_device(type_: str) -> None:
    """A device without memory takes every order and can answer no question."""
    model, rows = deepcopy(trained_here(type_)), labelled(300, 7).batch
    few = _Few.of(model, rows)
    model = model.to(torch.device("meta"))
    numbers, pdf, lost = Inference(model, "compact", ThreadPoolExecutor(1))._compute(rows, lambda: few)
    assert pdf is not None
    assert {found.device.type for found in (numbers, pdf, lost)} == {"meta"}
    assert (numbers.shape, pdf.shape, lost.shape) == ((14, 300), (300, 32), (300,))


@pytest.mark.parametrize("type_", ["ensemble", "resmlp"])
def test_a_device_runs_as_many_operations_for_many_rows_as_for_few(type_: str) -> None:
    model, counts = deepcopy(trained_here(type_)), []
    batches = [labelled(rows, 7).batch for rows in (100, 10_000)]
    few = [_Few.of(model, photometry) for photometry in batches]
    inference = Inference(model.to(torch.device("meta")), "compact", ThreadPoolExecutor(1))
    for photometry, kinds in zip(batches, few, strict=True):
        with Operations() as operations:
            inference._compute(photometry, lambda kinds=kinds: kinds)
        counts.append(operations.count)
    assert 0 < counts[0] == counts[1]


@given(st.integers(1, 40), st.integers(0, 100))
@settings(deadline=None)
def test_a_product_with_the_triangle_is_a_running_sum(size: int, seed: int) -> None:
    values = torch.rand(2, 3, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(values @ grid.triangle(values), grid.running_sum(values))


@on_gpu
def test_running_sums_are_the_same_in_every_run() -> None:
    values = torch.rand(4096, 301, device=GPU)
    with reproducible():
        sums = [grid.running_sum(values) for _ in range(3)]
    assert torch.equal(sums[0], sums[1]) and torch.equal(sums[0], sums[2])
    torch.testing.assert_close(sums[0].cpu(), values.cpu().cumsum(-1), rtol=1e-5, atol=1e-5)


@on_gpu
@pytest.mark.parametrize("type_", registry.types())
def test_two_trainings_give_the_same_model_to_the_bit(type_: str) -> None:
    one, other = (trained_on(type_, GPU) for _ in range(2))
    tensors, facts = one.model.state()
    again, same = other.model.state()
    assert facts == same and tensors.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in tensors.items())
    assert one.calibration == other.calibration and one.conformal == other.conformal


@on_gpu
@pytest.mark.parametrize("type_", PHOTOMETRIC)
def test_a_gpu_says_what_the_processor_says(type_: str) -> None:
    agrees(type_, GPU)


def agrees(type_: str, device: torch.device) -> None:
    """Numbers and PDFs of the same model, up to what products in bfloat16 differ by on the two."""
    model, rows = deepcopy(trained_here(type_)), sample_table(500, 7)
    for name in ("ra", "dec"):
        rows = rows.append_column(name, pa.array(np.zeros(len(rows))))
    here = predicted(model, rows)
    there = predicted(model.to(device), rows)
    points, other = here[0], there[0]
    assert points.column("object_id").equals(other.column("object_id"))
    for name in ("z_mode", "z_best", "z_mean", "z_median", "z_std", "z_p160", "z_p840", "z_c160", "z_c840"):
        apart = np.abs(points.column(name).to_numpy() - other.column(name).to_numpy())
        assert np.quantile(apart, 0.95) < 0.02, name
    assert np.mean(points.column("ood").to_numpy(False) == other.column("ood").to_numpy(False)) > 0.99
    assert np.mean(points.column("flags").to_numpy() == other.column("flags").to_numpy()) > 0.98
    one, two = (arrow.densities(pa.Table.from_batches([batch]))[0] for batch in (here[1], there[1]))
    apart = (CONTEXT.grid.cdf(one) - CONTEXT.grid.cdf(two)).abs().amax(1)
    assert float(apart.quantile(0.95)) < 0.1
