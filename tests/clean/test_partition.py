"""One partition in, one partition out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clean.small import BANDS, write_rows, write_survey
from zmill.catalog import hats
from zmill.catalog.hats import CatalogError
from zmill.clean import partition as module
from zmill.clean.partition import Recipe, clean_partition, complete_counts
from zmill.inputs.photometry.batch import Photometry, bits
from zmill.inputs.photometry.impute import MeanColors
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.survey_definition import Cut

COLORS = MeanColors(BANDS, (0.4, 0.4, 0.4), (10, 10, 10))
INPUTS = (PhotometryKind(BANDS, 2),)
LEARNED = {"photometry": COLORS.to_json()}
RECIPE = Recipe(INPUTS, {"faint": Cut(column="mag_r", max=22)}, LEARNED)


@pytest.mark.parametrize("rows", [0, 1, 5000])
def test_rows_order_and_measurements_are_kept(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_BYTES", 20_000)
    [part] = write_survey(tmp_path / "in", [rows], text_ids=rows == 1)
    counts = clean_partition(tmp_path / "in", tmp_path / "out", part, RECIPE)
    before, after = hats.read_columns(tmp_path / "in", part), hats.read_columns(tmp_path / "out", part)
    assert after.column_names == [*before.column_names, "imputed", "cut"]
    for name in before.column_names:
        assert after.schema.field(name).type == before.schema.field(name).type
        if not name.startswith("mag_"):
            assert after.column(name).equals(before.column(name)) or _same_floats(before, after, name)
    raw, clean = Photometry.from_arrow(before, BANDS), Photometry.from_arrow(after, BANDS)
    measured = np.isfinite(raw.mag)
    assert np.array_equal(clean.mag[measured], raw.mag[measured])
    assert np.array_equal(clean.measured, measured)
    assert not np.any(bits(clean.imputed, len(BANDS)) & measured)
    some = measured.any(axis=1)
    assert np.isfinite(clean.mag[some]).all() and np.isnan(clean.mag[~some]).all()
    faint = ~(raw.mag[:, 1] <= 22)  # on the measured magnitude: an imputed one does not pass
    assert np.array_equal(after.column("cut").to_numpy(), faint.astype(np.int32))
    assert counts["rows"] == rows and counts["no_band"] == np.count_nonzero(~some)
    assert counts["cut"]["faint"] == faint.sum()
    assert sum(counts["imputed"].values()) == bits(clean.imputed, len(BANDS)).sum()


def _same_floats(one: pa.Table, other: pa.Table, name: str) -> bool:
    return np.array_equal(one.column(name).to_numpy(), other.column(name).to_numpy(), equal_nan=True)


def test_without_imputation_magnitudes_stay(tmp_path: Path) -> None:
    [part] = write_survey(tmp_path / "in", [200])
    clean_partition(tmp_path / "in", tmp_path / "out", part, Recipe(INPUTS, {}, {}))
    before, after = hats.read_columns(tmp_path / "in", part), hats.read_columns(tmp_path / "out", part)
    assert _same_floats(before, after, "mag_g")
    assert set(after.column("imputed").to_pylist()) == {0} == set(after.column("cut").to_pylist())


def test_batches_do_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [part] = write_survey(tmp_path / "in", [3000])
    clean_partition(tmp_path / "in", tmp_path / "one", part, RECIPE)
    monkeypatch.setattr(module, "GROUP_BYTES", 2000)
    clean_partition(tmp_path / "in", tmp_path / "many", part, RECIPE)
    one, many = hats.read_columns(tmp_path / "one", part), hats.read_columns(tmp_path / "many", part)
    assert all(_same_floats(one, many, f"mag_{band}") for band in BANDS)
    assert one.column("imputed").equals(many.column("imputed"))


def test_a_complete_partition_is_skipped_until_input_or_recipe_change(tmp_path: Path) -> None:
    [part] = write_survey(tmp_path / "in", [100])
    where = (tmp_path / "in", tmp_path / "out", part)
    assert complete_counts(*where, RECIPE) is None
    counts = clean_partition(*where, RECIPE)
    assert complete_counts(*where, RECIPE) == counts
    assert complete_counts(*where, Recipe(INPUTS, {}, LEARNED)) is None
    assert complete_counts(*where, Recipe(INPUTS, RECIPE.cuts, {})) is None
    file = part.file(tmp_path / "out")
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert complete_counts(*where, RECIPE) is None
    file.write_bytes(content)
    write_survey(tmp_path / "in", [100], seed=2)
    assert complete_counts(*where, RECIPE) is None


@pytest.mark.parametrize("fault", ["truncated", "flipped", "empty"])
def test_a_damaged_input_is_named_and_nothing_is_written(tmp_path: Path, fault: str) -> None:
    [part] = write_survey(tmp_path / "in", [100])
    file = part.file(tmp_path / "in")
    content = bytearray(file.read_bytes())
    if fault == "flipped":
        content[len(content) // 2] ^= 1
    file.write_bytes({"truncated": content[: len(content) // 2], "flipped": content, "empty": b""}[fault])
    with pytest.raises(CatalogError, match=r"Npix=10.parquet: its content differs from its sidecar"):
        clean_partition(tmp_path / "in", tmp_path / "out", part, RECIPE)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_an_input_that_changes_meanwhile_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [part] = write_survey(tmp_path / "in", [100])
    real = hats.batches

    def meanwhile(*args: object) -> object:
        yield from real(*args)  # type: ignore[arg-type]
        write_survey(tmp_path / "in", [100], seed=2)

    monkeypatch.setattr(hats, "batches", meanwhile)
    with pytest.raises(CatalogError, match="it was changed while it was read"):
        clean_partition(tmp_path / "in", tmp_path / "out", part, RECIPE)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_rows_without_any_band_stay_empty(tmp_path: Path) -> None:
    [part] = write_survey(tmp_path / "in", [10])
    table = hats.read_columns(tmp_path / "in", part)
    nothing = pa.array(np.full(10, np.nan, np.float32))
    for band in BANDS:
        table = table.set_column(table.schema.get_field_index(f"mag_{band}"), f"mag_{band}", nothing)
    write_rows(tmp_path / "in", part, table)
    counts = clean_partition(tmp_path / "in", tmp_path / "out", part, RECIPE)
    assert counts["no_band"] == 10 and set(counts["imputed"].values()) == {0}
    assert pq.read_metadata(part.file(tmp_path / "out")).num_rows == 10
