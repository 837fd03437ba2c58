"""The input kind spectrum at its contract: batches, degradations, and a survey from its file to a photo-z of every row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from zmill.catalog import hats
from zmill.clean.partition import Recipe
from zmill.clean.shard import clean_shard, finish_catalog
from zmill.config import ConfigError, Partitions
from zmill.inputs import registry
from zmill.inputs.spectrum.batch import FEW_GOOD_PIXELS, NO_GOOD_PIXEL, Spectra
from zmill.inputs.spectrum.continuum import continuum, level, normalize, row_median
from zmill.inputs.spectrum.degradation import SpectrumDegradation
from zmill.inputs.spectrum.grid import WavelengthGrid
from zmill.inputs.spectrum.kind import SpectrumKind
from zmill.inputs.spectrum.settings import SpectrumSettings
from zmill.survey import importer
from zmill.survey.check import check_columns
from zmill.survey.importer import import_survey
from zmill.survey.plausible import look
from zmill.survey_definition import Survey
from zmill.workflow.warning import Warnings

PIXELS = 300
GRID = WavelengthGrid("log10", 3.6, 1.2e-3, PIXELS)


def batch(rows: int = 6, noise: float = 0.2) -> Spectra:
    rng = np.random.default_rng(rows)
    line = np.exp(-0.5 * ((np.arange(PIXELS) - rng.uniform(20, 280, (rows, 1))) / 2) ** 2)
    flux = rng.uniform(2, 40, (rows, 1)) * (
        1 + np.linspace(0, 1, PIXELS) + 4 * line + rng.normal(0, noise, (rows, PIXELS))
    )
    ivar = np.full(flux.shape, 1 / noise**2) / rng.uniform(2, 40, (rows, 1)) ** 2
    ivar[:, 100:110] = 0
    return Spectra.of(flux.astype(np.float32), ivar.astype(np.float32), GRID)


def hashed(rows: Spectra) -> str:
    digest = xxhash.xxh3_128()
    rows.update(digest)
    return digest.hexdigest()


def test_batches_are_cut_and_joined() -> None:
    rows = batch()
    assert hashed(Spectra.join([rows[:2], rows[2:]])) == hashed(rows)
    assert hashed(rows[np.array([1, 0, 2, 3, 4, 5])]) != hashed(rows)
    assert len(rows[rows.sn > 1e9]) == 0 and rows.nbytes == 6 * (2 * PIXELS + 2) * 4
    other = Spectra(rows.flux, rows.ivar, rows.sn, rows.good, WavelengthGrid("log10", 3.7, 1.2e-3, PIXELS))
    assert hashed(other) != hashed(rows), "the grid is part of the content"


def test_rows_without_good_pixels() -> None:
    rows = batch()
    ivar = rows.ivar.copy()
    ivar[0], ivar[1, :200] = 0, 0
    rows = rows.with_pixels(rows.flux, ivar)
    assert rows.flags()[:3].tolist() == [NO_GOOD_PIXEL | FEW_GOOD_PIXELS, FEW_GOOD_PIXELS, 0]
    assert rows.information()[:3].tolist() == [rows.classes, -1, -1]
    assert np.isnan(rows.brightness()[0]) and np.isfinite(rows.brightness()[1:]).all()
    features = rows.summary_features()
    assert features.shape == (6, len(rows.feature_names)) and np.isnan(features[0]).all()
    assert np.isnan(features[1, :10]).all() and np.isfinite(features[2]).all()
    assert rows.states()["masked"][:3].tolist() == [15, 7, 0] and len(rows.parts) == 4


def test_features_do_not_depend_on_the_flux_unit() -> None:
    rows = batch()
    scaled = Spectra.of(rows.flux * np.float32(1e-8), rows.ivar * np.float32(1e16), GRID)
    assert scaled.summary_features() == pytest.approx(rows.summary_features(), rel=1e-4)
    for one, other in ((normalize(rows.flux, rows.ivar), normalize(scaled.flux, scaled.ivar)),):
        assert other.values == pytest.approx(one.values, abs=1e-3)
        assert other.ivar == pytest.approx(one.ivar, rel=1e-3)
        assert other.log_level == pytest.approx(one.log_level - 8, abs=1e-4)


def test_the_continuum_passes_below_lines() -> None:
    rows = batch(20, noise=0.05)
    clean = level(rows.flux, rows.ivar)[:, None] * (1 + np.linspace(0, 1, PIXELS)) / 1.5
    found = continuum(rows.flux, rows.ivar)
    assert np.median(np.abs(found / clean - 1)) < 0.05
    lines = (rows.flux - found) / level(rows.flux, rows.ivar)[:, None]
    assert np.count_nonzero(lines.max(axis=1) > 1.5) >= 19, (
        "lines stay in the normalized spectrum; one is in masked pixels"
    )
    assert (normalize(rows.flux, rows.ivar).values[:, 100:110] == 0).all()
    empty = normalize(rows.flux * 0, rows.ivar * 0)
    assert (empty.values == 0).all() and (empty.log_level == 0).all()


def test_row_median() -> None:
    rng = np.random.default_rng(4)
    values, chosen = rng.normal(size=(50, 31)).astype(np.float32), rng.uniform(size=(50, 31)) < 0.4
    chosen[0] = False
    expected = [np.median(v[c]) if c.any() else np.nan for v, c in zip(values, chosen, strict=True)]
    assert row_median(values, chosen) == pytest.approx(expected, nan_ok=True)


def test_degradations_take_parts_away() -> None:
    rows, degradation = batch(40), SpectrumDegradation()
    for pattern in degradation.tests(rows):
        concerned = degradation.concerns(rows, pattern)
        changed = degradation.apply(rows, pattern)
        assert concerned.all() and len(changed) == 40
        if pattern.masked:
            lost = (changed.ivar == 0) & (rows.ivar > 0)
            assert lost.any(axis=1).all() and (changed.flux[lost] == 0).all() and (changed.good < rows.good).all()
        elif pattern.noise > 1:
            assert changed.sn == pytest.approx(rows.sn / 2, rel=0.3)
            assert np.array_equal(changed.flux, degradation.apply(rows, pattern).flux)
    half = degradation.tests(rows)[1]
    again = degradation.apply(degradation.apply(rows, half), half)
    assert not degradation.concerns(again, half).any()


def test_two_spectra_of_one_object_have_one_level() -> None:
    kind, rows = SpectrumKind(GRID), batch(30, noise=0.1)
    fainter = rows.with_pixels(rows.flux / np.array([1, 1.2, 3] * 10, np.float32)[:, None], rows.ivar)

    def table(spectra: Spectra) -> pa.Table:
        columns = {"flux": spectra.flux, "ivar": spectra.ivar}
        lists = {name: pa.FixedSizeListArray.from_arrays(v.reshape(-1), PIXELS) for name, v in columns.items()}
        return pa.table(lists)

    assert kind.agree(table(rows), table(fainter)).tolist() == [True, True, False] * 10
    empty = table(rows.with_pixels(rows.flux, rows.ivar * 0))
    assert kind.agree(table(rows), empty).all() and len(kind.agree(empty.slice(0, 0), empty.slice(0, 0))) == 0


def test_identical_spectra_are_constant() -> None:
    rows = batch(4)
    assert rows.constants() == {}
    assert rows[np.zeros(4, int)].constants()["the spectrum"][1] == 4


# ------------------------------------------------------------------------------------------------------ river


def definition(**more: Any) -> Survey:
    section = {
        "flux": "flux",
        "ivar": "ivar",
        "wavelength": {
            "start": 3.6,
            "step": 1.2e-3,
            "pixels": PIXELS,
            "scale": "log10",
            "unit": "angstrom",
            "air": False,
        },
        "sky": {"column": "type", "equals": ["SKY"]},
    }
    columns = {"object_id": "id", "ra": "ra", "dec": "dec"}
    content = {"files": ["s.parquet"], "columns": columns, "spectrum": section}
    return Survey.model_validate(content | more)


def write(path: Path, rows: int = 250, **columns: Any) -> Spectra:
    spectra, rng = batch(rows), np.random.default_rng(5)
    ivar = spectra.ivar.copy()
    ivar[7] = 0
    table = {
        "id": np.arange(rows),
        "ra": rng.uniform(10, 12, rows),
        "dec": rng.uniform(-1, 1, rows),
        "flux": pa.array(spectra.flux.tolist(), pa.list_(pa.float32(), PIXELS)),
        "ivar": pa.array(ivar.tolist(), pa.list_(pa.float32())),
        "type": ["SKY", *["TGT"] * (rows - 1)],
    }
    pq.write_table(pa.table(table | columns), path, row_group_size=100)
    return spectra.with_pixels(spectra.flux, ivar)


def test_a_survey_of_spectra_from_its_file_to_the_clean_catalogue(tmp_path: Path) -> None:
    spectra, survey = write(tmp_path / "s.parquet"), definition(cuts={"bright": {"column": "sn_median", "min": 5.0}})
    files = [tmp_path / "s.parquet"]
    check_columns(files, survey)
    found = look(files, survey)
    assert found.refusal is None and "sky_fiber: 1 of 250 rows are set aside" in found.warnings
    counts = import_survey(files, survey, Partitions(max_rows=100), tmp_path / "survey", tmp_path / "bad.parquet")
    assert (counts.rows, counts.kept, dict(counts.rejected)) == (250, 249, {"sky_fiber": 1})
    assert counts.json()["faults"] == {"spectrum": {"spectrum_masked": 1}} and counts.unusable == 1
    assert pq.read_table(tmp_path / "bad.parquet")["reason"].to_pylist() == ["sky_fiber"]
    partitions = hats.partitions(tmp_path / "survey")
    recipe = Recipe(tuple(registry.of_survey(survey)), survey.cuts, {})
    clean_shard(tmp_path / "survey", tmp_path / "clean", partitions, recipe, tmp_path / "progress.json")
    finish_catalog(tmp_path / "survey", tmp_path / "clean", "test")
    tables = [hats.read_columns(tmp_path / "clean", one) for one in partitions]
    (kind,) = registry.from_json(json.loads(json.dumps(registry.settings_of(survey))))
    rows = kind.read(pa.concat_tables(tables))
    assert isinstance(rows, Spectra) and rows.grid == GRID and len(partitions) > 1
    ids = pa.concat_tables(tables)["object_id"].to_numpy()
    assert np.array_equal(rows.flux, spectra.flux[ids]) and np.array_equal(rows.ivar, spectra.ivar[ids])
    assert rows.sn == pytest.approx(spectra.sn[ids], nan_ok=True)
    for catalog in ("survey", "clean"):
        field = pq.read_schema(partitions[0].file(tmp_path / catalog)).field("flux")
        assert WavelengthGrid.from_json(json.loads(field.metadata[b"wavelength"])) == GRID
    hats_check = pytest.importorskip("hats.io.validation")
    assert hats_check.is_valid_catalog(str(tmp_path / "clean"), strict=True)


def test_spectra_are_read_from_samples_without_the_ratio(tmp_path: Path) -> None:
    rows = batch()
    kind = SpectrumKind(GRID)
    table = pa.table(
        {name: pa.FixedSizeListArray.from_arrays(getattr(rows, name).reshape(-1), PIXELS) for name in ("flux", "ivar")}
    )
    assert hashed(kind.read(table)) == hashed(rows)  # type: ignore[arg-type]
    short = pa.array([[1.0] * 5], pa.list_(pa.float32(), 5))
    with pytest.raises(ValueError, match="a spectrum of 300 pixels"):
        kind.read(pa.table({"flux": short, "ivar": short}))


def test_missing_columns_and_other_types_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "s.parquet", size=np.ones(250))
    section = dict(definition().sections["spectrum"])
    with pytest.raises(ConfigError, match=r"no column 'fluxx' \(spectrum.flux\).*flux"):
        check_columns([tmp_path / "s.parquet"], definition(spectrum=section | {"flux": "fluxx"}))
    with pytest.raises(ConfigError, match=r"'size' \(spectrum.ivar\) holds double and not several numbers per row"):
        check_columns([tmp_path / "s.parquet"], definition(spectrum=section | {"ivar": "size"}))


def test_most_spectra_without_a_good_pixel_refuse_the_files(tmp_path: Path) -> None:
    spectra = write(tmp_path / "s.parquet")
    zeros = pa.array((spectra.ivar * 0).tolist(), pa.list_(pa.float32()))
    write(tmp_path / "s.parquet", ivar=zeros)
    found = look([tmp_path / "s.parquet"], definition())
    assert found.refusal is not None and "spectrum_masked" in found.refusal


def test_implausible_spectra_give_warnings(tmp_path: Path) -> None:
    spectra = write(tmp_path / "s.parquet")
    flux = spectra.flux.copy()
    flux[:, ::20] = -99
    write(tmp_path / "s.parquet", flux=pa.array(flux.tolist(), pa.list_(pa.float32())))
    assert any(
        "one value, -99, stands in 4.8%" in line for line in look([tmp_path / "s.parquet"], definition()).warnings
    )
    write(tmp_path / "s.parquet", ivar=pa.array((spectra.ivar * 1e12).tolist(), pa.list_(pa.float32())))
    assert any("signal-to-noise" in line for line in look([tmp_path / "s.parquet"], definition()).warnings)


def test_the_schema_of_the_section_is_documented() -> None:
    root = Path(__file__).resolve().parents[3]
    assert json.loads((root / "docs/schema/spectrum.json").read_text()) == SpectrumSettings.model_json_schema()


def test_pieces_of_the_import_are_limited_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spectra of 2.4 kB each: the row groups of 100 are pieces of their own where a piece is to hold 200 kB."""
    write(tmp_path / "s.parquet")
    monkeypatch.setattr(importer, "PIECE_BYTES", 200_000)
    headers, _ = importer._headers([tmp_path / "s.parquet"], definition(), Warnings())
    assert headers[0].spans == [(0, 100), (100, 200), (200, 250)]


def test_the_import_knows_whether_units_are_checked() -> None:
    """Implausible wavelengths are empty spectra, unless units are not checked."""
    for given in (True, False):
        kept = Survey.model_validate(importer.import_settings(definition(check_units=given)))
        assert kept.check_units == given
