"""A look at the first rows before any job: undeclared sentinels are said with counts and the line that declares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from small_survey import BANDS, survey

from zmill.catalog.files import read_json
from zmill.config import Partitions
from zmill.survey.importer import import_survey
from zmill.survey.plausible import Look, look
from zmill.survey_definition import Survey

ROWS = 2000
COLUMNS = {"extra": []}


def galaxies(**changes: Any) -> dict[str, Any]:
    """Columns of magnitudes and errors, all good."""
    rng = np.random.default_rng(5)
    data: dict[str, Any] = {
        "id": np.arange(ROWS),
        "ra": rng.uniform(10, 40, ROWS),
        "dec": rng.uniform(-20, 20, ROWS),
        "ebv": rng.uniform(0.01, 0.1, ROWS),
    }
    for band in BANDS:
        data[f"mag_{band}"] = rng.normal(22, 1.5, ROWS)
        data[f"err_{band}"] = rng.uniform(0.01, 0.2, ROWS)
    return {**data, **changes}


def with_value(column: str, value: float, rows: int) -> dict[str, Any]:
    data = galaxies()
    data[column] = np.array(data[column])
    data[column][:rows] = value
    return data


def looked(folder: Path, data: dict[str, Any], definition: Survey | None = None) -> Look:
    pq.write_table(pa.table(data), folder / "s.parquet")
    return look([folder / "s.parquet"], definition or survey(columns=COLUMNS))


def declared(warning: str) -> dict[str, Any]:
    """The YAML line of a warning, read back."""
    found = yaml.safe_load(warning.split("declare it: ")[1])
    assert isinstance(found, dict)
    return found


def test_good_rows_are_not_talked_about(tmp_path: Path) -> None:
    assert looked(tmp_path, galaxies()) == Look([], None)
    rounded = {name: np.round(values, 2) for name, values in galaxies().items()}
    assert looked(tmp_path, rounded) == Look([], None), "rounded numbers repeat each other"
    floor = galaxies()
    floor["err_g"] = np.maximum(floor["err_g"], 0.1)
    assert looked(tmp_path, floor) == Look([], None), "errors have floors"


@pytest.mark.parametrize(
    ("column", "value", "rows"),
    [
        ("mag_g", 99.0, 40),
        ("mag_g", -99.0, 3),
        ("mag_r", 0.0, 100),
        ("mag_r", 25.25, 100),
        ("mag_i", -9999.0, 30),
        ("mag_i", np.inf, 30),
        ("err_g", 0.0, 100),
        ("err_g", -1.0, 100),
        ("err_g", 99.0, 100),
    ],
)
def test_the_line_that_declares_a_sentinel_is_right(tmp_path: Path, column: str, value: float, rows: int) -> None:
    definition = survey(columns=COLUMNS, sentinels={"undetected": [77.0]})
    found = looked(tmp_path, with_value(column, value, rows), definition)
    lines = [warning for warning in found.warnings if "declare it: " in warning]
    assert len(lines) == 1 and f"{column} ({rows}) of {ROWS} rows" in lines[0]
    sentinels = {"undetected": [77.0], **declared(lines[0])["sentinels"]}
    assert 77.0 in sentinels["undetected"]
    again = looked(tmp_path, with_value(column, value, rows), survey(columns=COLUMNS, sentinels=sentinels))
    assert again == Look([], None)


def test_ebv_and_positions_are_counted_before_any_job(tmp_path: Path) -> None:
    definition = survey(columns={**COLUMNS, "ebv": "ebv"}, extinction={"coefficients": dict.fromkeys(BANDS, 3.0)})
    found = looked(tmp_path, with_value("ebv", -99.0, 300), definition)
    assert found == Look([f"ebv_out_of_range: 300 of {ROWS} rows are set aside"], None)
    data = with_value("ra", 0.0, 30)
    data["dec"][:30] = 0.0
    assert looked(tmp_path, data).warnings == [f"position_zero: 30 of {ROWS} rows are set aside"]


def test_rows_that_are_mostly_of_no_use_are_refused(tmp_path: Path) -> None:
    found = looked(tmp_path, with_value("dec", -99.0, 1001))
    assert (
        found.refusal
        and "1001 of 2000 rows are of no use" in found.refusal
        and "position_out_of_range" in found.refusal
    )


def fluxes(unit: float, **changes: Any) -> dict[str, Any]:
    """Fluxes of galaxies, AB magnitude `unit` being 1, and errors of a signal-to-noise ratio of 5 to 100."""
    data, rng = galaxies(), np.random.default_rng(6)
    for band in BANDS:
        data[f"mag_{band}"] = 10 ** (0.4 * (unit - data[f"mag_{band}"]))
        data[f"err_{band}"] = data[f"mag_{band}"] / rng.uniform(5, 100, ROWS)
    return {**data, **changes}


def test_a_wrong_unit_that_no_file_states_shows_in_the_median(tmp_path: Path) -> None:
    definition = survey(columns=COLUMNS, photometry="nanojansky")
    assert looked(tmp_path, fluxes(31.4), definition) == Look([], None)
    found = looked(tmp_path, fluxes(23.9), definition)
    assert len(found.warnings) == 1 and "the median magnitude is 29.5 in g" in found.warnings[0]


@pytest.mark.parametrize("given", ["sigma", "inverse_variance"])
def test_errors_of_another_kind_show_in_the_ratio(tmp_path: Path, given: str) -> None:
    """Nanojansky of an i = 16 survey, whose errors and inverse variances are far apart."""
    data = fluxes(37.0)
    for band in BANDS:
        if given == "inverse_variance":
            data[f"err_{band}"] = data[f"err_{band}"] ** -2.0
    right = survey(columns=COLUMNS, photometry="flux", zero_point=37.0, errors=given)
    assert looked(tmp_path, data, right) == Look([], None)
    other = {"sigma": "inverse_variance", "inverse_variance": "sigma"}[given]
    found = looked(tmp_path, data, survey(columns=COLUMNS, photometry="flux", zero_point=37.0, errors=other))
    assert any(f"({other}; is it {given}?)" in warning for warning in found.warnings)


def test_unobserved_fluxes_of_zero_are_not_talked_about(tmp_path: Path) -> None:
    data = fluxes(22.5)
    for band in BANDS:
        data[f"err_{band}"] = data[f"err_{band}"] ** -2.0
        data[f"mag_{band}"][:200] = data[f"err_{band}"][:200] = 0.0
    definition = survey(columns=COLUMNS, photometry="nanomaggy", errors="inverse_variance")
    assert looked(tmp_path, data, definition) == Look([], None)


def test_a_band_without_any_row_is_a_warning(tmp_path: Path) -> None:
    none = galaxies(mag_r=np.full(ROWS, np.nan), err_r=np.full(ROWS, np.nan))
    (warning,) = looked(tmp_path, none).warnings
    assert warning.startswith("r: measured in none of 2000 rows: check columns.flux")
    (warning,) = looked(tmp_path, galaxies(mag_r=np.full(ROWS, 99.0))).warnings
    assert warning.startswith("r: measured in none of 2000 rows")
    one = np.full(ROWS, np.nan)
    one[7] = 21
    assert looked(tmp_path, galaxies(mag_r=one)).warnings == []


def test_radians_that_no_file_states(tmp_path: Path) -> None:
    data = galaxies()
    data["ra"], data["dec"] = np.radians(data["ra"]), np.radians(data["dec"])
    found = looked(tmp_path, data)
    assert len(found.warnings) == 1 and "angle_unit: radian" in found.warnings[0]
    assert looked(tmp_path, data, survey(columns={**COLUMNS, "angle_unit": "radian"})) == Look([], None)


def test_the_import_keeps_what_was_seen(tmp_path: Path) -> None:
    pq.write_table(pa.table(with_value("mag_g", 99.0, 40)), tmp_path / "s.parquet")
    out = tmp_path / "out"
    import_survey(
        [tmp_path / "s.parquet"],
        survey(columns=COLUMNS, sentinels={}),
        Partitions(),
        out / "survey",
        out / "rejected" / "survey.parquet",
    )
    kept = read_json(out / "import.json")
    assert kept["faults"] == {"g": {"magnitude_out_of_range": 40}} and kept["kept"] == ROWS
    assert any("one value, 99, stands in mag_g (40)" in warning for warning in kept["warnings"])
