"""Labels from files: settings checked before any job, every row an entry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from zmill.catalog.footprint import Footprint
from zmill.config import ConfigError
from zmill.labels.base import ENTRY, LabelsError, Request, check, source_of
from zmill.strict_yaml import read_yaml
from zmill.survey_definition import LabelSource, Survey

COLUMNS = {"ra": "ra", "dec": "dec", "redshift": "z"}


def table(**more) -> Table:
    return Table({"ra": [10.0, 11.0, 12.0], "dec": [0.0, 1.0, 2.0], "z": [0.1, 0.2, 0.3], **more})


def entries(folder: Path, **label) -> pa.Table:
    source, settings = source_of(LabelSource(**{"name": "field", "files": ["a.*"], "columns": COLUMNS, **label}))
    nowhere = Footprint(np.empty(0, np.int64), np.empty(0, np.int64))
    return pa.concat_tables(source.entries(settings, Request(folder, nowhere, folder)))


@pytest.mark.parametrize(("ending", "format"), [("csv", "ascii.csv"), ("fits", "fits"), ("vot", "votable")])
def test_formats(tmp_path: Path, ending: str, format: str) -> None:
    table(q=[4, 3, 1], name=["a", "b", "c"], e=[1e-4, 0.0, -9.0]).write(tmp_path / f"a.{ending}", format=format)
    got = entries(tmp_path, quality={"map": {4: 4, 3: 2}, "default": 1}, columns={**COLUMNS, "flag": "q", "id": "name", "redshift_err": "e"})  # fmt: skip
    assert got.schema.equals(ENTRY)
    assert got["quality"].to_pylist() == [4, 2, 1]
    assert got["specz_id"].to_pylist() == ["a", "b", "c"]
    assert got["source_flag"].to_pylist() == ["4", "3", "1"]
    assert np.isfinite(got["redshift_err"].to_numpy()).tolist() == [True, False, False]
    assert got["redshift"].to_pylist() == [0.1, 0.2, 0.3]


def test_several_files_number_their_rows_on(tmp_path: Path) -> None:
    table().write(tmp_path / "a.csv")
    table().write(tmp_path / "a.fits")
    assert entries(tmp_path, quality=3)["specz_id"].to_pylist() == list("012345")


def test_numbers_that_are_no_redshift(tmp_path: Path) -> None:
    Table({"ra": [1.0] * 5, "dec": [1.0] * 5, "z": [np.nan, -9.99, 99.0, 0.3, np.nan], "v": [500.0, np.nan, 1, 1, np.nan]}).write(tmp_path / "a.fits")  # fmt: skip
    got = entries(tmp_path, quality=3, columns={**COLUMNS, "velocity": "v"})
    assert got["reason"].to_pylist() == ["velocity_only", "no_redshift", "redshift_out_of_range", "", "no_redshift"]


def test_a_class_rejects_despite_a_constant_quality(tmp_path: Path) -> None:
    table(type=["GALAXY", "STAR", "QSO"]).write(tmp_path / "a.csv")
    got = entries(tmp_path, quality=3, columns={**COLUMNS, "class": "type"})
    assert got["reason"].to_pylist() == ["", "star", "qso"]


def test_velocities_are_refused_unless_declared(tmp_path: Path) -> None:
    Table({"ra": [1.0, 1, 1], "dec": [1.0, 1, 1], "z": [29979.2458, 14989.6229, 3000.0], "e": [30.0, 30, 30]}).write(
        tmp_path / "a.csv"
    )
    with pytest.raises(LabelsError, match=r"3 of 3 values of 'z' are above 20.*set redshift_unit: km/s"):
        entries(tmp_path, quality=3)
    got = entries(tmp_path, quality=3, redshift_unit="km/s", columns={**COLUMNS, "redshift_err": "e"})
    assert got["redshift"].to_numpy()[:2] == pytest.approx([0.1, 0.05])
    assert got["redshift_err"].to_numpy() == pytest.approx(30 / 299792.458)


def test_angle_units(tmp_path: Path) -> None:
    table().write(tmp_path / "a.csv")
    assert entries(tmp_path, quality=3, angle_unit="hour")["ra"].to_pylist() == [150, 165, 180]
    Table({"ra": [300.0], "dec": [0.0], "z": [0.1]}).write(tmp_path / "a.csv", overwrite=True)
    with pytest.raises(LabelsError, match="reaches 300, which is no right ascension in hours"):
        entries(tmp_path, quality=3, angle_unit="hour")


def survey(**label) -> Survey:
    label = {"name": "field", "files": ["a.csv"], "columns": COLUMNS, "quality": 3, **label}
    columns = {"ra": "ra", "dec": "dec", "flux": "m_{band}"}
    return Survey.model_validate({"files": ["x.csv"], "columns": columns, "bands": ["r"], "labels": [label]})


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"source": "fiel"}, "there is no source 'fiel'; did you mean 'file'"),
        ({"source": "merge"}, "there is no source 'merge'"),
        ({"columns": {**COLUMNS, "redshift": "Z"}}, r"there is no column 'Z' \(columns.redshift\)"),
        ({"columns": {**COLUMNS, "class": "zz"}}, r"there is no column 'zz' \(columns.class\)"),
        ({"columns": {**COLUMNS, "flagg": "z"}}, r"columns.flagg: unknown key; did you mean 'flag'"),
        ({"schem": "vvds"}, "schem: unknown key; did you mean 'scheme'"),
        ({"scheme": "vvds"}, "either scheme .* or quality"),
        ({"scheme": "vvdss", "quality": None}, "there is no scheme 'vvdss'; did you mean 'vvds'"),
        ({"scheme": "vvds", "quality": None}, "scheme vvds needs columns.flag"),
        ({"quality": {"map": {"a": 3}}}, "quality.map needs columns.flag"),
        ({"quality": 7}, "quality"),
        ({"quality": {"constant": 4}}, "quality.map: this key is required and missing"),
        ({"quality": {"constant": 4}}, "quality.constant: unknown key; known keys here: map, default"),
        ({"format": "xlsx"}, "there is no format 'xlsx'"),
    ],
)
def test_wrong_settings_are_refused_before_any_job(tmp_path: Path, label: dict, message: str) -> None:
    table().write(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match=message):
        check(survey(**label), {"field": [str(tmp_path / "a.csv")]})


@pytest.mark.parametrize("ending", ["fits", "vot", "ecsv", "hdf5"])
@pytest.mark.parametrize(
    ("units", "settings", "message"),
    [
        (
            {"ra": "rad", "dec": "rad"},
            {},
            "column 'ra': in 'rad', but angle_unit is 'degree': write angle_unit: radian",
        ),
        ({"ra": "deg", "dec": "deg"}, {"angle_unit": "radian"}, "column 'dec': in 'deg', but angle_unit is 'radian'"),
        ({"z": "km/s"}, {}, "column 'z': in 'km.*s.*', but redshift_unit is 'z': write redshift_unit: km/s"),
        ({"ra": "deg", "dec": "deg"}, {}, ""),
        ({"z": "km/s"}, {"redshift_unit": "km/s"}, ""),
        ({"ra": "rad", "z": "km/s"}, {"check_units": False}, ""),
    ],
)
def test_units_in_a_file_are_compared_with_the_settings(
    tmp_path: Path, ending: str, units: dict, settings: dict, message: str
) -> None:
    rows = Table({"ra": [1.5, 2.0], "dec": [0.1, 0.2], "z": [0.1, 0.2]})
    for name, unit in units.items():
        rows[name].unit = unit
    more = {
        "hdf5": {"path": "t", "serialize_meta": True},
        "ecsv": {"format": "ascii.ecsv"},
        "vot": {"format": "votable"},
    }
    rows.write(tmp_path / f"l.{ending}", **more.get(ending, {}))
    label = {"name": "field", "files": [f"l.{ending}"], "columns": COLUMNS, "quality": 4, **settings}
    one = source_of(LabelSource.model_validate(label))[1]
    if not message:
        one.check([tmp_path / f"l.{ending}"])
        return
    with pytest.raises(ConfigError, match=message):
        one.check([tmp_path / f"l.{ending}"])


def test_files_that_a_rule_will_make_are_taken_on_trust(tmp_path: Path) -> None:
    check(survey(), {"field": [str(tmp_path / "new.csv")]})
    with pytest.raises(ConfigError, match="no source of spectroscopic redshifts"):
        check(survey().model_copy(update={"labels": []}), {})


BIG = 5_000_000_000_000_000_447


@pytest.mark.parametrize("ending", ["csv", "parquet", "fits", "vot"])
def test_identifiers_of_spectra_keep_every_digit_if_one_is_missing(tmp_path: Path, ending: str) -> None:
    ids = np.ma.array([BIG, 0, BIG + 2], mask=[False, True, False], fill_value=-1)
    form = {"csv": "ascii.csv", "vot": "votable"}.get(ending, ending)
    if ending == "parquet":
        data = pa.table({"ra": [1.0] * 3, "dec": [1.0] * 3, "z": [0.1] * 3, "id": pa.array([BIG, None, BIG + 2])})
        pq.write_table(data, tmp_path / "a.parquet")
    else:
        table(id=ids).write(tmp_path / f"a.{ending}", format=form)
    got = entries(tmp_path, quality=3, columns={**COLUMNS, "id": "id"})["specz_id"].to_pylist()
    assert got == [str(BIG), "", str(BIG + 2)]


def test_rounded_identifiers_of_spectra_are_refused(tmp_path: Path) -> None:
    table(id=[5e18, 5e18 + 2048, 1.0]).write(tmp_path / "a.fits")
    with pytest.raises(LabelsError, match=r"columns\.id\) holds floats .* leave columns\.id out"):
        entries(tmp_path, quality=3, columns={**COLUMNS, "id": "id"})


def test_flags_are_text_whatever_the_first_rows_look_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmill.survey.readers.text.HEAD_BYTES", 100)
    flags = ["3"] * 60 + ["3.5", "4.0", " B ", "b", "2000-01-01", "true"]
    lines = ["ra,dec,z,q", *(f"1,1,0.5,{flag}" for flag in flags)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    quality = {"map": {"3": 3, "3.50": 2, "4": 4, "B": 1, "True": 4}, "default": 0}
    got = entries(tmp_path, quality=quality, columns={**COLUMNS, "flag": "q"})
    assert got["quality"].to_pylist() == [3] * 60 + [2, 4, 1, 1, 0, 4]
    assert got["source_flag"].to_pylist()[-6:] == ["3.5", "4", "B", "b", "2000-01-01", "true"]


@pytest.mark.parametrize("ending", ["csv", "fits", "parquet"])
def test_truth_values_as_flags(tmp_path: Path, ending: str) -> None:
    table(q=[True, False, True]).write(tmp_path / f"a.{ending}", format={"csv": "ascii.csv"}.get(ending, ending))
    for keys in ({True: 4, False: 1}, {"true": 4, "FALSE": 1}):
        got = entries(tmp_path, quality={"map": keys}, columns={**COLUMNS, "flag": "q"})
        assert got["quality"].to_pylist() == [4, 1, 4]


def test_keys_of_yaml_mean_what_the_file_writes(tmp_path: Path) -> None:
    (tmp_path / "q.yaml").write_text("map: {Yes: 4, no: 1, 3.50: 3, on: 2, 010: 1, 2000-01-01: 2, null: 0}")
    read = read_yaml(tmp_path / "q.yaml", "q.yaml")["map"]
    assert read == {"Yes": 4, "no": 1, "3.50": 3, "on": 2, "010": 1, "2000-01-01": 2, "null": 0}
    (tmp_path / "a.csv").write_text("ra,dec,z,q\n1,1,0.5,YES\n1,1,0.5,no\n1,1,0.5,3.5\n")
    got = entries(tmp_path, quality={"map": read}, columns={**COLUMNS, "flag": "q"})
    assert got["quality"].to_pylist() == [4, 1, 3]


def test_a_table_that_the_service_cut_is_noted(tmp_path: Path) -> None:
    table().write(tmp_path / "a.vot", format="votable")
    text = (tmp_path / "a.vot").read_text()
    (tmp_path / "a.vot").write_text(text.replace("<TABLE", '<INFO name="QUERY_STATUS" value="OVERFLOW"/><TABLE', 1))
    source, settings = source_of(LabelSource(name="field", files=["a.*"], columns=COLUMNS, quality=3))
    request = Request(tmp_path, Footprint(np.empty(0, np.int64), np.empty(0, np.int64)), tmp_path)
    assert sum(map(len, source.entries(settings, request))) == 3
    assert "labels: field: " in request.notes[0] and "QUERY_STATUS = OVERFLOW" in request.notes[0]
