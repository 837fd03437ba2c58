"""Rows on disk are the same as in memory, and take up little memory however many they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inputs.toys.added import added
from models.toy_survey import CONTEXT, sample_table
from zmill.inputs import registry, stored
from zmill.inputs.base import Joint, LabelledBatch, ModelContext
from zmill.inputs.stored import Stored
from zmill.models import registry as models
from zmill.pdf.grid import Grid
from zmill.training import prior, store, trained
from zmill.training.evaluate import evaluate
from zmill.training.samples import Sample, read_samples
from zmill.training.trained import TrainedModel, fit_and_calibrate, refit

GRID = Grid(0.0, 1.5, 76)
ROWS = {"train": 400, "valid": 150, "calib": 150, "test": 120}


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with added():
        yield


def context(pixels: int = 24) -> ModelContext:
    return ModelContext((registry.kind("toyspectrum").from_json({"pixels": pixels}),), GRID, 1)


def write(folder: Path, rows: dict[str, int], pixels: int = 24, group: int = 70) -> dict[str, Path]:
    """Tables of spectra with a line that moves with redshift, in row groups of different sizes."""
    for seed, (split, n) in enumerate(rows.items()):
        rng = np.random.default_rng(seed)
        z = rng.uniform(0.05, 1.4, n)
        line = np.exp(-0.5 * ((np.arange(pixels) / pixels * 24 - 3 - 14 * z[:, None]) / 1.5) ** 2).astype(np.float32)
        flux = pa.FixedSizeListArray.from_arrays(pa.array((1 + 5 * line).ravel()), pixels)
        sky = np.sort(rng.integers(0, 12 * 4**29, n))
        table = pa.table(
            {
                "object_id": np.arange(n),
                "_healpix_29": sky,
                "spectrum": flux,
                "redshift": z,
                "weight": rng.uniform(0.5, 2, n),
            }
        )
        pq.write_table(table, folder / f"{split}.parquet", row_group_size=group)
    return {split: folder / f"{split}.parquet" for split in rows}


def trained_on(samples: dict[str, Sample], given: ModelContext) -> TrainedModel:
    cls = models.model_class("toynetwork")
    chosen = cls.Settings(epochs=4, batch=32, lr=0.01)
    train, valid, calib = (samples[split].training_rows(weighted=True) for split in ("train", "valid", "calib"))
    return fit_and_calibrate(
        "toy", "toynetwork", chosen, given, train, valid, calib, torch.device("cpu"), lambda line: None
    )


def test_a_model_is_the_same_from_rows_on_disk(tmp_path: Path) -> None:
    """Fit, calibration, detector, prior, refit and all metrics."""
    tables, found = write(tmp_path, ROWS), []
    for most_bytes in (1 << 30, 1000):
        samples = read_samples(tables, context(), most_bytes=most_bytes)
        assert isinstance(samples["test"].rows.batch, Stored) == (most_bytes == 1000)
        trained = trained_on(samples, context())
        degradation = trained.context.degradation(samples["train"].rows.batch, {})
        refit(trained, LabelledBatch.join([samples[s].rows for s in ("train", "valid", "calib")]), lambda line: None)
        judged = {split: samples[split] for split in ("valid", "test")}
        predictions, metrics = evaluate(trained, trained, judged, 4, 1, degradation)
        store.save(tmp_path / str(most_bytes), trained)
        hashes = [samples[split].rows.content_hash for split in tables]
        found.append((store.model_hash(tmp_path / str(most_bytes)), hashes, metrics["splits"], predictions))
    (*one, one_table), (*other, other_table) = found
    assert one == other
    assert one_table.equals(other_table)
    assert [path.name for path in tmp_path.iterdir() if path.is_file() and path.suffix != ".parquet"] == []


def test_photometry_on_disk_is_evaluated_alike(tmp_path: Path) -> None:
    """Missing-band tests, natural patterns and classes of little information."""
    for seed, split in enumerate(ROWS):
        pq.write_table(sample_table(ROWS[split], seed), tmp_path / f"{split}.parquet", row_group_size=70)
    tables = {split: tmp_path / f"{split}.parquet" for split in ROWS}
    memory, disk = (read_samples(tables, CONTEXT, most_bytes=most) for most in (1 << 30, 0))
    train, valid, calib = (memory[split].rows for split in ("train", "valid", "calib"))
    trained = fit_and_calibrate(
        "knn",
        "knn",
        models.model_class("knn").Settings(),
        CONTEXT,
        train,
        valid,
        calib,
        torch.device("cpu"),
        lambda line: None,
    )
    removal = CONTEXT.degradation(train.batch, {})
    assert CONTEXT.degradation(disk["train"].rows.batch, {}).limits.tolist() == pytest.approx(
        removal.limits, nan_ok=True
    )
    found = [
        evaluate(trained, trained, {s: samples[s] for s in ("valid", "test")}, 4, 1, removal)[1]["splits"]
        for samples in (memory, disk)
    ]
    assert found[0] == found[1]
    assert read_samples(tables, CONTEXT, on_disk=False, most_bytes=0)["test"].rows.batch.mag.shape[0] == ROWS["test"]


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_rows_in_any_order_are_those_of_memory(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    sizes = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=3))
    tables = write(folder, {str(number): size for number, size in enumerate(sizes)}, 4, data.draw(st.integers(1, 50)))
    both = ModelContext((*context(4).inputs, CONTEXT.inputs[0]), GRID, 1)  # two kinds together
    memory = LabelledBatch.join([read_samples({"s": table}, both)["s"].rows for table in tables.values()])
    disk = LabelledBatch.join([read_samples({"s": table}, both, most_bytes=-1)["s"].rows for table in tables.values()])
    assert isinstance(disk.batch, Stored) and isinstance(memory.batch, Joint)
    assert memory.content_hash == disk.content_hash
    if len(memory):
        numbers = np.array(data.draw(st.lists(st.integers(0, len(memory) - 1), max_size=60)), np.int64)
        memory, disk = memory.rows(numbers), disk.rows(numbers)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(memory), max_size=len(memory))), bool)
    for rows in (slice(None), slice(1, 7, 2), mask):
        one, other = memory.batch[rows], disk.batch[rows]
        for name, array in one.arrays.items():
            np.testing.assert_array_equal(array, other.arrays[name])
    np.testing.assert_array_equal(memory.batch.summary_features(), disk.batch.summary_features())
    np.testing.assert_array_equal(memory.batch.information(), disk.batch.information())


def test_too_little_space_is_found_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = write(tmp_path, {"train": 100})
    monkeypatch.setattr("zmill.inputs.stored.shutil.disk_usage", lambda folder: type("Usage", (), {"free": 9000}))
    with pytest.raises(OSError, match=r"train.parquet: its 100 rows need 0.0 GB of temporary space, and .* has 0.0 GB"):
        read_samples(tables, context(), most_bytes=0)


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """A training of 130 MB of spectra in a process of its own, which needs far less memory for rows on disk."""
    rows = {"train": 2000, "valid": 300, "calib": 300}
    (tmp_path / "large").mkdir()
    write(tmp_path / "large", rows, pixels=12_500, group=80)
    most = {
        most_bytes: int(
            subprocess.run(
                [sys.executable, __file__, str(tmp_path), str(most_bytes)],
                check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            ).stdout
        )
        for most_bytes in (0, 1 << 40)
    }  # fmt: skip
    assert most[1 << 40] > 130e6, "the rows in memory are measured"
    assert most[0] < 0.4 * most[1 << 40]


def main(folder: Path, most_bytes: int) -> None:
    """Train once, and print by how much the largest resident size of the process grew."""
    for module in (stored, trained, prior):
        module.BATCH_BYTES = 4 << 20  # type: ignore[attr-defined]
    with added():
        trained_on(
            read_samples(write(folder, dict.fromkeys(("train", "valid", "calib"), 120)), context()), context()
        )  # all code is loaded
        before = largest_size()
        tables = {split: folder / "large" / f"{split}.parquet" for split in ("train", "valid", "calib")}
        given = context(12_500)
        trained_on(read_samples(tables, given, most_bytes=most_bytes), given)
    sys.stdout.write(str(largest_size() - before))


def largest_size() -> int:
    """Largest resident size of this process so far in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
