"""The nearest training spectra of objects: which they are, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from models.toy_spectra import CONTEXT, labelled
from zmill.catalog import hats
from zmill.catalog.hats import Partition
from zmill.columns import lists
from zmill.inputs.base import LabelledBatch
from zmill.inputs.spectrum.kind import WAVELENGTH
from zmill.models.registry import model_class
from zmill.predict import retrieve as module
from zmill.predict.retrieve import retrieve
from zmill.training import store
from zmill.training.trained import ModelError, fit_and_calibrate, refit

UNKNOWN = ["redshift", "distance", "novelty"]
"""Columns that are NaN for the object itself."""
CPU = torch.device("cpu")
SPLITS = {"train": (400, 1), "valid": (120, 2), "calib": (120, 3)}


def table(rows: LabelledBatch, first: int) -> pa.Table:
    """Rows as a stage of the workflow writes them, with identifiers from `first` on."""
    metadata = {WAVELENGTH: b"{}"}
    pixels = pa.list_(pa.float32(), rows.batch.flux.shape[1])
    schema = pa.schema(
        [
            pa.field("_healpix_29", pa.int64()),
            pa.field("object_id", pa.int64()),
            *(pa.field(name, pixels, metadata=metadata) for name in ("flux", "ivar")),
            pa.field("sn_median", pa.float32()),
            pa.field("good_fraction", pa.float32()),
        ]
    )
    batch, number = rows.batch, np.arange(len(rows)) + first
    columns = [number, number, lists(batch.flux), lists(batch.ivar), batch.sn, batch.good]
    return pa.table([pa.array(column) for column in columns], schema=schema)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`clean/`, `sample/`, and a model that was refitted to all labelled rows."""
    folder = tmp_path_factory.mktemp("results")
    parts = {name: labelled(*which) for name, which in SPLITS.items()}
    (folder / "sample").mkdir()
    for number, (name, rows) in enumerate(parts.items()):
        whole = table(rows, 1000 * (number + 1))
        whole = whole.append_column("redshift", pa.array(rows.z)).append_column("weight", pa.array(rows.weight))
        pq.write_table(whole, folder / "sample" / f"{name}.parquet", row_group_size=50)
    partitions = [Partition(2, 4), Partition(2, 9)]
    sky = [table(parts["valid"], 2000), table(labelled(60, 9), 7000)]
    for partition, rows in zip(partitions, sky, strict=True):
        with hats.write_partition(folder / "clean", partition, rows.schema) as out:
            out.write(rows)
    hats.finish(folder / "clean", "toy", partitions)
    for type_ in ("spectrum_neighbors", "spectrum_cnn"):
        cls = model_class(type_)
        given = {"network": {**cls.quick["network"], "epochs": 2}} if type_ == "spectrum_neighbors" else cls.quick
        settings = cls.Settings.model_validate(given)
        trained = fit_and_calibrate(type_, type_, settings, CONTEXT, *parts.values(), CPU, lambda line: None)
        refit(trained, LabelledBatch.join(list(parts.values())), lambda line: None)
        store.save(folder / "models" / type_, trained)
    return folder


def found(results: Path, *objects: str) -> pa.Table:
    out = results / "retrieve.parquet"
    written = retrieve(results, results / "models" / "spectrum_neighbors", objects, CONTEXT.inputs, out)
    assert pq.read_table(out).drop_columns(UNKNOWN).equals(written.drop_columns(UNKNOWN))
    return written


def test_neighbors_are_rows_of_the_sample(results: Path) -> None:
    rows = found(results, "7003", "7058", "2007")
    assert rows.num_rows == 3 * (1 + module.COUNT)
    assert list(dict.fromkeys(rows["object_id"].to_pylist())) == [7003, 7058, 2007]
    sample = {
        row["object_id"]: (split, row["redshift"], row["flux"])
        for split in SPLITS
        for row in pq.read_table(results / "sample" / f"{split}.parquet").to_pylist()
    }
    for row in rows.to_pylist():
        if row["rank"] == 0:
            assert row["neighbor_id"] == row["object_id"] and row["split"] is None and np.isnan(row["redshift"])
            continue
        split, z, flux = sample[row["neighbor_id"]]
        assert row["split"] == split and row["redshift"] == pytest.approx(z, rel=1e-6) and row["flux"] == flux
        assert row["distance"] >= 0 and row["novelty"] >= 0
    ranks = rows["rank"].to_numpy().reshape(3, -1)
    assert (ranks == np.arange(module.COUNT + 1)).all()
    assert (np.diff(rows["distance"].to_numpy().reshape(3, -1)[:, 1:]) >= 0).all()
    assert rows.schema.field("flux").metadata == {WAVELENGTH: b"{}"}


def test_an_object_of_the_sample_is_its_own_nearest(results: Path) -> None:
    rows = found(results, "2007").to_pylist()
    assert rows[1]["neighbor_id"] == 2007 and rows[1]["split"] == "valid" and rows[1]["distance"] < 1e-2


def test_an_object_that_is_not_there_is_named(results: Path) -> None:
    with pytest.raises(
        LookupError, match=r"config.yaml: retrieve: 99, abc: no such object in .*clean: give identifiers"
    ):
        found(results, "7003", "99", "abc")


def test_other_models_and_other_samples_are_refused(results: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="spectrum_cnn keeps no embeddings"):
        retrieve(results, results / "models" / "spectrum_cnn", ["7003"], CONTEXT.inputs, tmp_path / "r.parquet")
    (tmp_path / "sample").mkdir()
    (tmp_path / "clean").symlink_to(results / "clean")
    for split in SPLITS:
        pq.write_table(
            pq.read_table(results / "sample" / f"{split}.parquet").slice(0, 5), tmp_path / "sample" / f"{split}.parquet"
        )
    with pytest.raises(ModelError, match=r"\d+ of the nearest training spectra are not there any more"):
        retrieve(tmp_path, results / "models" / "spectrum_neighbors", ["7003"], CONTEXT.inputs, tmp_path / "r.parquet")
    assert not (tmp_path / "r.parquet").exists()
