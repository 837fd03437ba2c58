"""A survey given as training and test tables ends in the same sample as one on the sky."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zmill.catalog.files import read_json
from zmill.config import Split
from zmill.sample.sample import LABEL_COLUMNS, SPLITS, SampleError
from zmill.sample.tables import TABLE_LABELS, sample_tables
from zmill.survey_definition import Survey
from zmill.workflow.warning import collect

BANDS = ("u", "g", "r")


def definition(**changes: object) -> Survey:
    values = {
        "tables": {"train": ["train.parquet"], "test": ["test.parquet"]},
        "columns": {"flux": "{band}", "error": "{band}_err", "redshift": "z"},
        "bands": list(BANDS),
        "sentinels": {"undetected": [99], "limit_in_error": True},
        "cuts": {"faint": {"column": "mag_r", "max": 24}},
    }
    return Survey.model_validate(values | changes)


def write(path: Path, rows: int, seed: int, shift: float = 0) -> Path:
    rng = np.random.default_rng(seed)
    columns: dict[str, np.ndarray] = {}
    redshift = rng.uniform(0, 2, rows)
    redshift[:3] = np.nan
    for number, band in enumerate(BANDS):
        mag, error = rng.uniform(20, 25, rows) - number / 2 + shift, np.full(rows, 0.1)
        lost = rng.random(rows) < 0.2
        mag[lost], error[lost] = 99, 27.5
        columns |= {band: mag, f"{band}_err": error}
    pq.write_table(pa.table(columns | {"z": redshift}), path)
    return path


def run(folder: Path, split: Split | None = None, impute: str = "mean_color", test_shift: float = 0) -> dict:
    train, test = write(folder / "train.parquet", 900, 1), write(folder / "test.parquet", 300, 2, test_shift)
    return sample_tables([train], [test], definition(), split or Split(), impute, 1, folder / "out")


def test_all_rows_are_used_or_counted(tmp_path: Path) -> None:
    report, counts = run(tmp_path), read_json(tmp_path / "out" / "split.json")
    assert counts["steps"][0] == {"step": "labelled", "rows": 1200}
    assert counts["excluded"]["no_redshift"] == 6
    assert counts["excluded"]["cut:faint"] > 0
    assert sum(entry["rows"] for entry in report["splits"].values()) == counts["steps"][-1]["rows"]
    train, test = report["splits"]["train"]["rows"], report["splits"]["test"]["rows"]
    assert 0.7 < train / (counts["steps"][-1]["rows"] - test) < 0.8  # 0.6 of the 0.8 that are not test


def test_columns_are_those_of_a_survey_on_the_sky_without_position(tmp_path: Path) -> None:
    run(tmp_path)
    for name in SPLITS:
        table = pq.read_table(tmp_path / "out" / "sample" / f"{name}.parquet")
        assert table.column_names == [
            "object_id",
            *(f"{kind}_{band}" for kind in ("mag", "magerr", "maglim") for band in BANDS),
            *("undetected", "unobserved", "ebv", "imputed", "cut"),
            *LABEL_COLUMNS,
            "weight",
        ]
        assert np.isfinite(table.column("redshift").to_numpy()).all()
        filled = table.column("imputed").to_numpy()
        gone = table.column("undetected").to_numpy()
        mags = np.stack([table.column(f"mag_{band}").to_numpy() for band in BANDS], axis=1)
        assert np.array_equal(filled, np.where(np.isfinite(mags).all(axis=1), gone, 0))
        assert np.nanmax(mags) < 30
    assert tuple(TABLE_LABELS) == LABEL_COLUMNS


def test_test_tables_do_not_reach_the_colors(tmp_path: Path) -> None:
    for name, shift in (("one", 0.0), ("other", 3.0)):
        (tmp_path / name).mkdir()
        run(tmp_path / name, test_shift=shift)
    one, other = ((tmp_path / name / "out" / "imputation.json").read_bytes() for name in ("one", "other"))
    assert one == other


def test_imputation_can_be_left_out(tmp_path: Path) -> None:
    run(tmp_path, impute="none")
    table = pq.read_table(tmp_path / "out" / "sample" / "train.parquet")
    assert set(table.column("imputed").to_pylist()) == {0}
    assert np.isnan(table.column("mag_u").to_numpy()).any()


def test_too_few_rows(tmp_path: Path) -> None:
    train, test = write(tmp_path / "train.parquet", 12, 1), write(tmp_path / "test.parquet", 300, 2)
    with pytest.raises(SampleError, match=r"train has .* and needs 20.*312 rows have a label"):
        sample_tables([train], [test], definition(), Split(), "none", 1, tmp_path / "out")


def test_real_tables(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "lsst_dc2"
    bands = ["u", "g", "r", "i", "z", "y"]
    survey = Survey.model_validate(
        {
            "tables": {"train": ["a"], "test": ["b"]},
            "group": "photometry",
            "columns": {"flux": "mag_{band}_lsst", "error": "mag_err_{band}_lsst", "redshift": "redshift"},
            "bands": bands,
            "sentinels": {"undetected": [99], "limit_in_error": True},
        }
    )
    report = sample_tables(
        [folder / "test_dc2_training_9816.hdf5"], [folder / "test_dc2_validation_9816.hdf5"], survey, Split(),
        "mean_color", 1, tmp_path,
    )  # fmt: skip
    assert sum(entry["rows"] for entry in report["splits"].values()) == 10_225 + 20_449 - 2  # beyond z = 3
    table = pq.read_table(tmp_path / "sample" / "test.parquet")
    lost = table.column("undetected").to_numpy() & 1 == 1
    assert lost.any() and np.array_equal(table.column("imputed").to_numpy() & 1 == 1, lost)
    assert np.nanmax(table.column("mag_u").to_numpy()) < 40


def tables(folder: Path, train: dict, test: dict, **changes: object) -> tuple[dict, dict]:
    """Run on tables of three bands; `split.json`, and the counts of `rejected/labels.parquet`."""
    for name, columns in (("train", train), ("test", test)):
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    columns = {"flux": "{band}", "error": "{band}_err", "redshift": "z"}
    if "id" in train:
        columns["object_id"] = "id"
    survey = definition(columns=columns, cuts={}, redshift_grid={"min": 0, "max": 2, "points": 201}, **changes)
    sample_tables([folder / "train.parquet"], [folder / "test.parquet"], survey, Split(), "none", 1, folder / "out")
    rejected = pq.read_table(folder / "out" / "rejected" / "labels.parquet")
    counted = {one["values"]: one["counts"] for one in rejected["reason"].value_counts().to_pylist()}
    return read_json(folder / "out" / "split.json"), counted


def galaxies(rows: int, seed: int, first_id: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    columns = {"id": np.arange(first_id, first_id + rows), "z": rng.uniform(0.1, 1.9, rows)}
    for band in BANDS:
        columns |= {band: rng.uniform(20, 25, rows), f"{band}_err": rng.uniform(0.01, 0.1, rows)}
    return columns


def sample(folder: Path) -> dict[str, pa.Table]:
    return {name: pq.read_table(folder / "out" / "sample" / f"{name}.parquet") for name in SPLITS}


def test_redshifts_of_tables_are_checked_like_those_of_labels(tmp_path: Path) -> None:
    train, test = galaxies(900, 1), galaxies(300, 2, 5000)
    train["z"][:100], train["z"][100:130], train["z"][130:140], train["z"][140:145] = -99, 9.9999, 0.0005, np.nan
    test["z"][:20], test["z"][20:30], test["z"][30] = -99, 9.9999, 99
    counts, rejected = tables(tmp_path, train, test)
    expected = {"no_redshift": 125, "redshift_out_of_range": 1, "low_redshift": 10, "beyond_grid": 40}
    assert {reason: counts["excluded"][reason] for reason in expected} == expected == rejected
    for rows in sample(tmp_path).values():
        z = rows["redshift"].to_numpy()
        assert z.min() > 0.001 and z.max() <= 2
    beyond, others, *_ = counts["warnings"]
    assert (
        "40 of 1,200 labelled rows (3.33 %) have a redshift beyond redshift_grid (0 to 2), from 9.9999 to 9.9999"
        in beyond
    )
    assert "no_redshift 125, redshift_out_of_range 1, low_redshift 10" in others


def test_one_redshift_of_very_many_rows_is_warned_of(tmp_path: Path) -> None:
    train = galaxies(900, 1)
    train["z"][:200] = 1.5
    counts, _ = tables(tmp_path, train, galaxies(300, 2, 5000))
    assert len(counts["warnings"]) == 1 and "have one and the same redshift, 1.5" in counts["warnings"][0]
    assert "200 of 1,200" in counts["warnings"][0]


@pytest.mark.parametrize("with_ids", [True, False])
def test_training_rows_that_are_test_rows_do_not_train(tmp_path: Path, with_ids: bool) -> None:
    train, test = galaxies(900, 1), galaxies(300, 2, 5000)
    for name in test:
        test[name][:150] = train[name][:150]
    wanted = set(np.round(test["z"], 9))
    if not with_ids:
        del train["id"], test["id"]
    counts, rejected = tables(tmp_path, train, test)
    assert rejected == {"in_test_table": 150} and counts["excluded"]["in_test_table"] == 150
    assert counts["splits"]["test"] == 300
    assert (
        "150 of 900 rows of the training tables are of objects that the test tables (300 rows) have"
        in counts["warnings"][0]
    )
    for name, rows in sample(tmp_path).items():
        z = set(np.round(rows["redshift"].to_numpy(), 9))
        assert (z == wanted) if name == "test" else not (z & wanted)


def test_an_object_measured_twice_is_known_by_its_identifier(tmp_path: Path) -> None:
    train, test = galaxies(900, 1), galaxies(300, 2, 5000)
    test["id"][:50], test["z"][:50] = train["id"][:50], train["z"][:50] + 0.001
    _, rejected = tables(tmp_path, train, test)
    assert rejected == {"in_test_table": 50}


def test_row_numbers_that_are_no_identifiers_lose_nothing(tmp_path: Path) -> None:
    counts, rejected = tables(tmp_path, galaxies(900, 1), galaxies(300, 2))
    assert rejected.get("in_test_table", 0) < 10 and counts["splits"]["train"] > 500
    assert any("have the identifier of a test row and another redshift" in text for text in counts["warnings"])


def test_rows_that_are_there_twice_count_once(tmp_path: Path) -> None:
    train = galaxies(900, 1)
    for name in train:
        train[name][100:130] = train[name][:30]
    train["id"][100:130] = np.arange(10_000, 10_030)
    _, rejected = tables(tmp_path, train, galaxies(300, 2, 5000))
    assert rejected == {"duplicate": 30}


def test_a_band_that_does_not_vary_is_warned_of(tmp_path: Path) -> None:
    train, test = galaxies(600, 1), galaxies(200, 2, 5000)
    train["r"][:] = 21.5
    tables(tmp_path, train, test)
    stages = [stage for stage, text in collect(tmp_path / "out") if "mag_r is 21.5 in all " in text]
    assert stages == ["sample"]
