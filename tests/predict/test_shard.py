"""A shard's job from end to end: a real network, saved and loaded, HATS catalogues that other people's tools open."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from predict_sky import BANDS, clean_rows, contents, write_rows, write_sky

from zmill.catalog import hats
from zmill.catalog.files import read_json, write_json
from zmill.catalog.hats import CatalogError, Partition
from zmill.config import Predict
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.models.resmlp import ResidualEnsemble
from zmill.pdf import arrow, points
from zmill.pdf.grid import Grid
from zmill.predict import assign, champion
from zmill.predict.finish import finish
from zmill.predict.infer import COLUMNS
from zmill.predict.shard import predict_shard
from zmill.training import store
from zmill.training.store import model_hash
from zmill.training.trained import ModelError, fit_and_calibrate

GRID = Grid(0.0, 3.0, 61)
SURVEY = [PhotometryKind(BANDS, 3)]
ROWS = [700, 0, 1, 2500]
PARTITIONS = [Partition(4, 7 + 5 * number) for number in range(len(ROWS))]


def labelled(rows: int, seed: int) -> LabelledBatch:
    photometry = Photometry.from_arrow(clean_rows(PARTITIONS[0], rows, seed), BANDS)
    z = 1.5 + 0.3 * np.nan_to_num(photometry.mag[:, 1] - photometry.mag[:, 3])
    return LabelledBatch(photometry, np.clip(z, 0.05, 2.9), np.ones(rows))


def train(folder: Path, name: str, seed: int) -> None:
    settings = ResidualEnsemble.Settings(members=2, width=16, blocks=1, epochs=1)
    context = ModelContext((PhotometryKind(BANDS, 3),), GRID, seed)
    parts = labelled(600, 1), labelled(100, 2), labelled(150, 3)
    trained = fit_and_calibrate(name, "resmlp", settings, context, *parts, torch.device("cpu"), lambda line: None)
    store.save(folder, trained)


def crown(results: Path, name: str) -> None:
    """Make a model of `models/` the champion."""
    hash_ = model_hash(results / "models" / name)
    shutil.copytree(results / "models" / name, assign.folder(results, hash_), dirs_exist_ok=True)
    write_json(assign.state(results), {"model": name, "hash": hash_})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results up to the choice of the model."""
    results = tmp_path_factory.mktemp("results of the demo")
    assert write_sky(results, ROWS) == PARTITIONS
    train(results / "models" / "net", "net", seed=1)
    crown(results, "net")
    return results


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "results"))


def predict(results: Path, pdf: str = "compact") -> None:
    settings = Predict(pdf=pdf, batch_rows=1000)
    model = assign.current(results)
    predict_shard(results, model, 0, PARTITIONS[:2], SURVEY, settings, threads=2)
    predict_shard(results, model, 1, PARTITIONS[2:], SURVEY, settings, threads=2)


def table_of(catalog: Path) -> pa.Table:
    return pa.concat_tables([hats.read_columns(catalog, partition) for partition in hats.partitions(catalog)])


@pytest.mark.parametrize("pdf", ["compact", "full", "none"])
def test_every_row_of_the_survey_has_its_redshift(results: Path, pdf: str) -> None:
    predict(results, pdf)
    assert finish(results, "demo", pdf) == sum(ROWS)
    photoz, clean = table_of(results / "photoz"), table_of(results / "clean")
    for name in ("_healpix_29", "object_id", "ra", "dec"):
        assert photoz.column(name).equals(clean.column(name))
    assert photoz.schema.names[4:] == [*COLUMNS, "ood", "flags"]
    for name in COLUMNS:
        assert np.isfinite(photoz.column(name).to_numpy()).all()
    model = store.load(results / "models" / "net")
    expected = points.summarize(model.predict(Photometry.from_arrow(clean, BANDS)), GRID)
    # the engine may compute in bfloat16
    off = np.abs(photoz.column("z_median").to_numpy() - expected["z_median"].numpy())
    assert off.max() < 0.05
    said = read_json(results / "progress" / "predict" / "1.json")
    assert (said["rows"], said["partitions"], said["model"]["name"], said["pdf"]) == (2501, 2, "net", pdf)
    if pdf == "none":
        assert not (results / "pdf").exists()
        return
    stored = table_of(results / "pdf")
    assert stored.column("object_id").equals(clean.column("object_id"))
    densities, grid = arrow.densities(hats.read_columns(results / "pdf", PARTITIONS[3]))
    assert grid == GRID
    mean = points.moments(densities, grid)[0].numpy()
    np.testing.assert_allclose(mean, photoz.column("z_mean").to_numpy()[-2500:], atol=0.02)
    described = read_json(results / "pdf" / "pdf.json")
    assert (described["kind"], described["rows"], described["model"]["name"]) == (pdf, sum(ROWS), "net")
    assert pq.read_schema(PARTITIONS[3].file(results / "pdf")).metadata[arrow.KEY]


def test_a_second_run_writes_the_same_bytes(results: Path) -> None:
    predict(results)
    first = contents(results / "photoz") | contents(results / "pdf")
    for name in ("photoz", "pdf"):
        shutil.rmtree(results / name)
    predict(results)
    assert contents(results / "photoz") | contents(results / "pdf") == first


def test_partitions_of_an_earlier_champion_stay_and_those_of_an_unknown_model_are_refused(results: Path) -> None:
    predict(results)
    finish(results, "demo", "compact")
    first = assign.current(results)
    train(results / "models" / "other", "other", seed=2)
    crown(results, "other")
    predict_shard(results, assign.current(results), 0, PARTITIONS[:2], SURVEY, Predict(), threads=1)
    assert finish(results, "demo", "compact") == sum(ROWS)
    made = [hats.sidecar(results / "photoz", one)["model"] for one in PARTITIONS]
    assert made == [assign.current(results).name] * 2 + [first.name] * 2
    assert champion.known(results) == set(made)
    shutil.rmtree(first)
    with pytest.raises(CatalogError, match=r"photoz: 2 of 4 partitions .*run snakemake --cores 2 mend"):
        finish(results, "demo", "compact")
    assert not (results / "photoz" / "partition_info.csv").exists()
    predict(results)
    finish(results, "demo", "compact")
    assert champion.known(results) == {assign.current(results).name}


def test_a_new_champion_takes_over_within_the_budget_of_a_night(results: Path) -> None:
    predict(results)
    shards = (0, 1)
    first = assign.current(results).name
    assert assign.assign(results, shards, None, "compact") == dict.fromkeys(shards, first)
    train(results / "models" / "other", "other", seed=2)
    crown(results, "other")
    new = assign.current(results).name
    assert assign.assign(results, shards, None, "compact") == dict.fromkeys(shards, new)
    assert assign.assign(results, shards, 1e-9, "compact") == {0: new, 1: first}, "one shard at least, the others wait"
    stored = assign.assign(results, shards, 1e-9, "full")
    assert stored == dict.fromkeys(shards, new), "PDFs that are to be stored otherwise do not wait"
    predict_shard(results, assign.folder(results, new), 0, PARTITIONS[:2], SURVEY, Predict(), threads=1)
    assert assign.assign(results, shards, 1e-9, "compact") == dict.fromkeys(shards, new), "the next night goes on"
    assert assign.assign(results, (0, 1, 2), 1e-9, "compact")[2] == new, "what is new gets the champion"
    wider = read_json(assign.folder(results, first) / "model.json")
    wider["odds"]["width"] = 0.2
    write_json(assign.folder(results, first) / "model.json", wider)
    assign._same_columns.cache_clear()
    assert assign.assign(results, shards, 1e-9, "compact") == dict.fromkeys(shards, new), "odds of one width"
    shutil.rmtree(assign.folder(results, first))
    assert assign.assign(results, shards, 1e-9, "compact") == dict.fromkeys(shards, new)


def test_columns_of_another_schema_version_are_predicted_again(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(assign, "SCHEMA_VERSION", assign.SCHEMA_VERSION - 1)
        predict(results)
        old = {path: path.stat().st_ino for path in (results / "photoz" / "dataset").rglob("*.parquet")}
        finish(results, "demo", "compact")
    with pytest.raises(
        CatalogError, match=r"4 of 4 partitions .*run snakemake --cores 2 mend(.|\n)*schema_version is \d+, expected"
    ):
        finish(results, "demo", "compact")
    first = assign.current(results).name
    train(results / "models" / "other", "other", seed=2)
    crown(results, "other")
    new = assign.current(results).name
    assert assign.assign(results, (0, 1), 1e-9, "compact") == {0: new, 1: new} != {0: first, 1: first}
    predict(results)
    finish(results, "demo", "compact")
    assert all(path.stat().st_ino != inode for path, inode in old.items())


def test_what_is_missing_keeps_the_catalogue_from_being_finished(results: Path) -> None:
    predict(results)
    PARTITIONS[2].file(results / "pdf").unlink()
    with pytest.raises(CatalogError, match=rf"pdf: 1 of 4 .*\n.*{PARTITIONS[2].name}.parquet: missing"):
        finish(results, "demo", "compact")
    assert not (results / "pdf" / "partition_info.csv").exists()
    write_rows(results / "clean", PARTITIONS[0], clean_rows(PARTITIONS[0], 700, seed=9))
    with pytest.raises(CatalogError, match=r"photoz: 1 of 4 .*\n.*input is \w+, expected"):
        finish(results, "demo", "compact")


def test_partitions_of_an_earlier_import_go_and_pdfs_that_nobody_wants_go_too(results: Path) -> None:
    predict(results)
    stray = Partition(4, 500)
    write_rows(results / "photoz", stray, hats.read_columns(results / "photoz", PARTITIONS[0]))
    finish(results, "demo", "compact")
    assert not stray.file(results / "photoz").exists()
    assert not stray.sidecar(results / "photoz").exists()
    predict(results, "none")
    finish(results, "demo", "none")
    assert not (results / "pdf").exists()


def test_a_model_of_other_bands_is_refused(results: Path) -> None:
    with pytest.raises(ModelError, match="trained on the bands u, g, r, i, z, y"):
        predict_shard(
            results, assign.current(results), 0, PARTITIONS[:1], [PhotometryKind(("g", "r"), 1)], Predict(), threads=1
        )


@pytest.mark.parametrize("pdf", ["compact", "full"])
def test_hats_lsdb_and_qp_open_what_is_written(results: Path, pdf: str) -> None:
    lsdb = pytest.importorskip("lsdb")
    from hats.io.validation import is_valid_catalog

    from zmill.pdf import qp as zmill_qp

    predict(results, pdf)
    finish(results, "demo", pdf)
    for name in ("photoz", "pdf"):
        assert is_valid_catalog(results / name, strict=True, verbose=True)
        opened = lsdb.open_catalog(results / name)
        assert len(opened) == sum(ROWS)
        frame = opened.compute()
        assert sorted(frame["object_id"]) == sorted(table_of(results / "clean").column("object_id").to_pylist())
    table = hats.read_columns(results / "pdf", PARTITIONS[3])
    ensemble = zmill_qp.ensemble(table)
    median = np.ravel(ensemble.ppf(0.5))
    expected = hats.read_columns(results / "photoz", PARTITIONS[3]).column("z_median").to_numpy()
    np.testing.assert_allclose(median, expected, atol=0.03)
