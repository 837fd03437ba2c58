"""A further input kind is one file: from a survey's files to a photo-z of every row, alone and together with photometry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from inputs.toys.added import added
from zmill.catalog import hats
from zmill.catalog.sizes import row_bytes
from zmill.clean.partition import Recipe
from zmill.clean.shard import clean_shard, finish_catalog
from zmill.config import ConfigError, Gates, ModelSettings, Partitions, Predict
from zmill.inputs import copies, registry
from zmill.inputs.base import ROW_FLAGS, Joint, ModelContext
from zmill.inputs.degradation import Degradation
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.models import registry as models
from zmill.pdf.grid import Grid
from zmill.predict.shard import predict_shard
from zmill.survey.check import check_columns
from zmill.survey.importer import import_survey
from zmill.survey_definition import Survey
from zmill.training import store
from zmill.training.evaluate import evaluate
from zmill.training.samples import Sample
from zmill.training.trained import ModelError, fit_and_calibrate

PIXELS, ROWS, GRID = 24, 1200, Grid(0.0, 1.5, 151)
PHOTOMETRY: dict[str, Any] = {"bands": ["g", "r", "i"], "photometry": "ab_magnitude"}


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with added():
        yield


def definition(photometry: bool, **more: Any) -> Survey:
    columns = {"object_id": "id", "ra": "ra", "dec": "dec"}
    bands = PHOTOMETRY if photometry else {}
    columns |= {"flux": "mag_{band}", "error": "err_{band}"} if photometry else {}
    section = {"flux": "flux", "pixels": PIXELS}
    return Survey.model_validate({"files": ["s.parquet"], "columns": columns, "toyspectrum": section, **bands, **more})


def write(path: Path, kind: str = "fixed") -> np.ndarray:
    """Rows with a line that moves with redshift; a few have no spectrum. Returns their redshifts."""
    rng = np.random.default_rng(1)
    z = rng.uniform(0.05, 1.2, ROWS)
    line = np.exp(-0.5 * ((np.arange(PIXELS) - 3 - 14 * z[:, None]) / 1.5) ** 2)
    flux = (1 + 5 * line + rng.normal(0, 0.1, line.shape)).astype(np.float32)
    mag = 20 + z[:, None] * [2.0, 1.0, 0.5] + rng.normal(0, 0.1, (ROWS, 3))
    values = pa.array(flux.tolist(), pa.list_(pa.float32(), PIXELS) if kind == "fixed" else pa.list_(pa.float64()))
    table = pa.table(
        {
            "id": np.arange(ROWS),
            "ra": rng.uniform(10, 12, ROWS),
            "dec": rng.uniform(-1, 1, ROWS),
            "flux": values,
            **{f"mag_{band}": mag[:, number] for number, band in enumerate("gri")},
            **{f"err_{band}": np.full(ROWS, 0.1) for band in "gri"},
        }
    )
    pq.write_table(table, path)
    return z


def imported(folder: Path, survey: Survey) -> tuple[list[hats.Partition], pa.Table]:
    """The survey, imported and cleaned, and its rows."""
    import_survey([folder / "s.parquet"], survey, Partitions(max_rows=400), folder / "survey", folder / "bad.parquet")
    partitions = hats.partitions(folder / "survey")
    recipe = Recipe(tuple(registry.of_survey(survey)), survey.cuts, {})
    clean_shard(folder / "survey", folder / "clean", partitions, recipe, folder / "progress.json")
    finish_catalog(folder / "survey", folder / "clean", "toy")
    return partitions, pa.concat_tables([hats.read_columns(folder / "clean", one) for one in partitions])


@pytest.mark.parametrize(
    ("photometry", "model"), [(False, "toyneighbors"), (True, "toyneighbors"), (True, "toyjoint"), (False, "trainz")]
)
def test_every_row_of_a_survey_has_a_photoz(tmp_path: Path, photometry: bool, model: str) -> None:
    z, survey = write(tmp_path / "s.parquet"), definition(photometry)
    check_columns([tmp_path / "s.parquet"], survey)
    partitions, rows = imported(tmp_path, survey)
    assert len(partitions) > 1 and rows.num_rows == ROWS
    assert rows.schema.field("spectrum").type == pa.list_(pa.float32(), PIXELS)
    given = pq.read_table(tmp_path / "s.parquet")["flux"].take(rows["object_id"].combine_chunks())
    assert rows["spectrum"].combine_chunks().equals(given.combine_chunks()), "spectra stay with their rows"

    cls = models.model_class(model)
    if model == "trainz" and not photometry:
        with pytest.raises(ConfigError, match=r"models.trainz takes photometry; and surveys/toy.yaml has toyspectrum"):
            registry.check_inputs(survey, {model: cls.inputs}, "surveys/toy.yaml")
        return
    registry.check_inputs(survey, {model: cls.inputs}, "surveys/toy.yaml")
    inputs = registry.from_json(registry.settings_of(survey), cls.inputs)
    context = ModelContext(inputs, GRID, seed=1)
    sample = rows.append_column("redshift", pa.array(z[rows["object_id"].to_numpy()]))
    sample = sample.append_column("weight", pa.array(np.ones(ROWS)))
    number = np.random.default_rng(2).permutation(ROWS)
    parts = [
        sample.take(pa.array(number[some])) for some in (slice(500), slice(500, 700), slice(700, 900), slice(900, None))
    ]
    train, valid, calib = (context.labelled(part) for part in parts[:3])
    assert isinstance(train.batch, Joint) == (model == "toyjoint")
    trained = fit_and_calibrate(
        model, model, cls.Settings(), context, train, valid, calib, torch.device("cpu"), lambda line: None
    )
    store.save(tmp_path / "model", trained)
    samples = {"valid": Sample.of(parts[1], context), "test": Sample.of(parts[3], context)}
    _, found = evaluate(trained, trained, samples, 4, 1, context.degradation(train.batch, {}))
    assert found["brightness"] == ("r (AB magnitude)" if model == "toyjoint" else "median flux")
    assert found["splits"]["test"]["board"]["sigma_mad"] < 0.02
    assert found["splits"]["test"]["made"][0]["pattern"] == "as observed"

    predict_shard(tmp_path, tmp_path / "model", 0, partitions, registry.of_survey(survey), Predict(), threads=1)
    photoz = pa.concat_tables([hats.read_columns(tmp_path / "photoz", one) for one in partitions])
    assert photoz["object_id"].equals(rows["object_id"])
    error = np.abs(photoz["z_median"].to_numpy() - z[rows["object_id"].to_numpy()])
    assert np.median(error) < 0.03


def test_lists_of_any_length_are_held_against_the_definition(tmp_path: Path) -> None:
    write(tmp_path / "s.parquet", "list")
    imported(tmp_path, definition(photometry=False))
    with pytest.raises(ConfigError, match=r"column 'mag_g' \(toyspectrum.flux\) holds double and not several numbers"):
        check_columns([tmp_path / "s.parquet"], definition(False, toyspectrum={"flux": "mag_g", "pixels": PIXELS}))
    with pytest.raises(ConfigError, match="flux"):
        check_columns([tmp_path / "s.parquet"], definition(False, toyspectrum={"flux": "fluxx", "pixels": PIXELS}))


def test_a_wrong_section_is_refused() -> None:
    with pytest.raises(ConfigError, match="toyspectrum: fluxes"):
        registry.check_inputs(definition(True, toyspectrum={"fluxes": "flux", "pixels": 9}), {}, "surveys/toy.yaml")
    with pytest.raises(ConfigError, match="pixels"):
        registry.check_inputs(definition(True, toyspectrum={"flux": "flux", "pixels": 1}), {}, "surveys/toy.yaml")
    with pytest.raises(ValidationError, match="neither of them"):
        definition(False, bands=["g"])


def test_models_that_take_other_inputs_are_named_in_one_message() -> None:
    wanted = {name: models.model_class(name).inputs for name in ("knn", "toyjoint", "toyneighbors")}
    message = (
        "config.yaml: models.knn takes photometry; models.toyjoint takes photometry and toyspectrum; and surveys/toy.yaml has "
        "toyspectrum: add what is missing to the survey definition, or take these models out of `models`"
    )
    with pytest.raises(registry.UnfitModels, match=re.escape(message)):
        registry.check_inputs(definition(photometry=False), wanted, "surveys/toy.yaml")
    assert models.fitting(["toyspectrum"]) == ["toyneighbors", "toynetwork"]


def test_the_default_models_are_those_of_the_first_input_but_for_null() -> None:
    survey = definition(photometry=True)
    assert list(registry.default_models(survey, {})) == ["knn", "fcnn", "ensemble"]
    assert list(registry.default_models(survey, {"knn": None, "fcnn": "null"})) == ["ensemble"]
    with pytest.raises(
        ConfigError, match="models: 'knnn' is null, and no default model of photometry; did you mean 'knn'"
    ):
        registry.default_models(survey, {"knnn": None})
    with pytest.raises(ConfigError, match="no model is left"):
        registry.default_models(survey, dict.fromkeys(["knn", "fcnn", "ensemble"]))


def test_default_models_are_valid() -> None:
    for kind in registry.kinds():
        entries = {name: ModelSettings.model_validate(entry) for name, entry in kind.models.items()}
        for name, (cls, _) in models.check_models(entries).items():
            assert set(cls.inputs) == {kind.name}, name


@pytest.mark.parametrize(
    "keys",
    [{"errors": "inverse_variance"}, {"sentinels": {"undetected": [99]}}, {"filters": {"g": "sdss2010-g"}}],
)
def test_keys_of_photometry_are_refused_without_it(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"{next(iter(keys))}: for photometry, which the survey does not have"):
        definition(False, **keys)


def test_a_model_of_another_input_is_refused(tmp_path: Path) -> None:
    survey = definition(photometry=True)
    inputs = registry.from_json(registry.settings_of(survey), ("toyspectrum",))
    assert inputs[0].degradation(None, None).__class__ is Degradation
    write(tmp_path / "s.parquet")
    _, rows = imported(tmp_path, survey)
    sample = rows.append_column("redshift", pa.array(np.linspace(0.1, 1.0, ROWS)))
    sample = sample.append_column("weight", pa.array(np.ones(ROWS)))
    context = ModelContext(inputs, GRID, seed=1)
    parts = [context.labelled(sample.slice(first, 300)) for first in (0, 300, 600)]
    cls = models.model_class("toyneighbors")
    trained = fit_and_calibrate(
        "toy", "toyneighbors", cls.Settings(), context, *parts, torch.device("cpu"), lambda line: None
    )
    store.save(tmp_path / "model", trained)
    only_photometry = [kind for kind in registry.of_survey(survey) if kind.name == "photometry"]
    with pytest.raises(ModelError, match="trained on toyspectrum, which the survey does not have"):
        store.load(tmp_path / "model", survey=only_photometry)


def test_rows_of_several_kinds_have_no_information_where_no_kind_has_any() -> None:
    """Only one band is little information of a magnitude, and enough together with a spectrum."""
    context = ModelContext(registry.from_json(registry.settings_of(definition(photometry=True))), GRID, seed=1)
    table = pa.table(
        {
            "mag_g": pa.array([20, None, None], pa.float32()),
            "spectrum": pa.array([[1.0] * PIXELS, [1.0] * PIXELS, [np.nan] * PIXELS], pa.list_(pa.float32(), PIXELS)),
        }
    )
    batch = context.read(table)
    assert isinstance(batch, Joint)
    assert batch.kinds["photometry"].information().tolist() == [0, 3, 3]
    assert batch.information().tolist() == [-1, -1, 0]
    both = Joint.join([batch[:1], batch[1:]])
    assert len(both) == 3 and np.array_equal(both.flags(), batch.flags())


def test_no_bit_of_flags_has_two_meanings() -> None:
    bits = [*ROW_FLAGS, *(bit for kind in registry.kinds() for bit in kind.flag_bits)]
    assert len(set(bits)) == len(bits)
    assert all(bit & (bit - 1) == 0 for bit in bits)


def test_what_drifts_is_limited_by_a_key_of_the_gates() -> None:
    rows = pa.table({f"mag_{band}": pa.array([20.0, 21.0, None, None], pa.float32()) for band in "gri"})
    photometry, toy = registry.of_survey(definition(photometry=True))
    found = photometry.drift(rows.select(photometry.drift_columns()))
    assert found == {"magnitudes": dict.fromkeys("gri", 20.5), "measured": dict.fromkeys("gri", 0.5)}
    assert set(found) <= set(Gates.model_fields)
    assert toy.drift_columns() == [] and toy.drift(rows) == {}, "a kind has gates of its own, or none"


def test_rows_at_one_position_are_one_object_where_their_measurements_agree() -> None:
    def rows(*pairs: tuple[float | None, float | None]) -> pa.Table:
        return pa.table(
            {
                f"mag_{band}": pa.array(values, pa.float32())
                for band, values in zip("gr", zip(*pairs, strict=True), strict=True)
            }
        )

    one = rows((20, 21), (20, 21), (20, None), (None, None), (None, None), (20, None))
    other = rows((20.4, 21.4), (21, 22), (20.4, 25), (None, None), (20, 21), (None, 21))
    photometry = PhotometryKind(("g", "r"), 1)
    assert photometry.agree(one, other).tolist() == [True, False, True, True, False, False]
    only_reference = photometry.agree(one.select(["mag_r"]), other.select(["mag_r"]))
    assert only_reference.tolist() == [True, False, False, True, False, False]
    toy = registry.of_survey(definition(photometry=False))
    assert copies.agree(toy, one, other).all() and not copies.agree([*toy, photometry], one, other).all()


def test_equal_measurements_have_one_identity() -> None:
    photometry, toy = registry.of_survey(definition(photometry=True))
    mags = {f"mag_{band}": pa.array([20, 20, 20, 20], pa.float32()) for band in "gr"}
    last = pa.array([21.0, 21.0, 22.0, None], pa.float32())
    flux = pa.array([[1.0] * PIXELS, [1.0] * PIXELS, [2.0] * PIXELS, [np.nan] * PIXELS], pa.list_(pa.float32(), PIXELS))
    rows = pa.table({**mags, "mag_i": last, "spectrum": flux})
    for found in (photometry.read(rows).identities(), toy.read(rows).identities()):
        assert found[0] == found[1] != found[2] and found[3] == b""


def test_batches_of_large_rows_have_few_rows() -> None:
    context = ModelContext(registry.from_json(registry.settings_of(definition(photometry=True))), GRID, seed=1)
    spectra = pa.array(np.zeros((10, PIXELS), np.float32).tolist(), pa.list_(pa.float32(), PIXELS))
    table = pa.table({"mag_g": np.zeros(10, np.float32), "spectrum": spectra})
    batch = context.read(table)
    assert isinstance(batch, Joint) and batch.nbytes == sum(kind.nbytes for kind in batch.kinds.values())
    assert batch.rows_in(batch.nbytes // 2, 100) == 5
    assert batch.rows_in(1 << 30, 100) == 100 and batch.rows_in(1, 100) == 1 and batch[:0].rows_in(9, 100) >= 1


def test_rows_are_counted_by_their_size(tmp_path: Path) -> None:
    """A spectrum of 5,000 pixels makes row groups of a few thousand rows, of the size of those of magnitudes."""
    schema = pa.schema([("spectrum", pa.list_(pa.float32(), 5000)), ("object_id", pa.string())])
    assert row_bytes(schema) == 5000 * 4 + 24
    partition = hats.Partition(4, 7)
    with hats.write_partition(tmp_path, partition, schema) as writer:
        assert 5_000 < writer.group_rows < 10_000
