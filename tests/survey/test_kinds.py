"""Types over all files: identifiers and carried columns keep every digit, whatever the first rows and files look like."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_survey import survey, table, write

from zmill.catalog import hats
from zmill.config import ConfigError, Partitions
from zmill.survey import importer, pieces
from zmill.survey.check import check_columns
from zmill.survey.importer import import_survey
from zmill.survey.readers import ReadError, text
from zmill.survey_definition import Survey

BIG = 9_007_199_254_740_993
"""The first integer that a float64 does not hold."""


def run(folder: Path, files: list[Path], definition: Survey) -> pa.Table:
    import_survey(files, definition, Partitions(), folder / "survey", folder / "rejected" / "survey.parquet")
    parts = [hats.read_columns(folder / "survey", part) for part in hats.partitions(folder / "survey")]
    return pa.concat_tables(parts).sort_by("ra")


def files_of(folder: Path, format: str, *columns: list[object] | pa.Array, name: str = "kind") -> list[Path]:
    """A file for each list of values of one column."""
    found = []
    for number, values in enumerate(columns):
        rows = table(len(values), seed=number, first_id=1 + 100 * number)
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
        found.append(write(rows, folder / str(number), format))
    return found


@pytest.mark.parametrize("format", ["csv", "parquet"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_column_without_values_fits_every_type(tmp_path: Path, format: str, first: int) -> None:
    for kind, (values, empty) in enumerate(((["GALAXY", "STAR"], ""), ([1.5, 2.5], None), ([BIG, BIG + 1], None))):
        nothing = pa.nulls(2) if format == "csv" or kind != 0 else pa.array([np.nan, np.nan])
        columns = [nothing, values] if first == 0 else [values, nothing]
        files = files_of(tmp_path / f"{kind}", format, *columns)
        definition = survey(columns={"extra": ["kind"]})
        check_columns(files, definition)
        found = run(tmp_path / f"out-{kind}", files, definition).column("kind").to_pylist()
        kept = [value for value in found if value not in ("", None) and value == value]
        assert sorted(kept) == values and len(found) == 4
        assert all(value is empty or value == empty or value != value for value in found if value not in kept)


def test_integers_then_decimals_then_text_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "HEAD_BYTES", 400)
    values = [*(str(n) for n in range(60)), "3.5", "J12"]
    path = files_of(tmp_path, "csv", values)[0]
    definition = survey(columns={"extra": ["kind"]})
    assert check_columns([path], definition) == {"kind": pa.int64()}
    found = run(tmp_path, [path], definition)
    assert sorted(found.column("kind").to_pylist()) == sorted(values)
    told = json.loads((tmp_path / "progress" / "import" / "types.json").read_text())
    assert [one[:2] for one in told] == [["kind", "string"]]
    passes: list[object] = []
    count = pieces.count
    monkeypatch.setattr(pieces, "count", lambda *arguments: passes.append(arguments) or count(*arguments))
    again = run(tmp_path, [path], definition).column("kind")
    assert again.equals(found.column("kind")) and not passes, "the next import knows the type from the start"


@pytest.mark.parametrize(
    "values", [["1", "2", "J3"], ["1", "2", "03"], ["1", "2", str(2**63)], ["1", "2", "2000-01-01"]]
)
def test_identifiers_that_first_look_like_integers_are_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[str]
) -> None:
    monkeypatch.setattr(text, "HEAD_BYTES", 200)
    (path,) = files_of(tmp_path, "csv", [*values[:2], *(str(n) for n in range(10, 50)), values[2]], name="id")
    found = run(tmp_path, [path], survey(columns={"extra": []})).column("object_id")
    assert found.type == pa.string() and set(values) <= set(found.to_pylist())


def test_carried_integers_keep_their_digits(tmp_path: Path) -> None:
    for number, format in enumerate(("parquet", "csv", "fits")):
        (path,) = files_of(tmp_path / f"{number}", format, [BIG, BIG + 2, BIG + 4])
        found = run(tmp_path / f"out-{number}", [path], survey(columns={"extra": ["kind"]}))
        assert sorted(found.column("kind").to_pylist()) == [BIG, BIG + 2, BIG + 4]


def test_text_in_some_files_and_numbers_in_others_is_refused_before_any_job(tmp_path: Path) -> None:
    files = files_of(tmp_path, "parquet", ["a", "b"], [1, 2])
    message = r"0/s\.parquet: column 'kind' \(extra\) is text in some files and a number in others: .*1/s\.parquet"
    with pytest.raises(ConfigError, match=message):
        check_columns(files, survey())
    with pytest.raises(ReadError, match=message):
        run(tmp_path, files, survey())


def test_a_column_that_one_of_many_files_lacks_is_found_before_any_job(tmp_path: Path) -> None:
    files = [write(table(3, first_id=10 * n + 1), tmp_path / f"{n:02d}", "parquet") for n in range(30)]
    pq.write_table(table(3).drop_columns(["mag_r"]), files[17])
    with pytest.raises(ConfigError, match=r"17/s\.parquet: there is no column 'mag_r' \(columns\.flux of band r\)"):
        check_columns(files, survey())


def test_a_column_that_holds_no_numbers_is_found_before_any_job(tmp_path: Path) -> None:
    for format in ("parquet", "csv"):
        data = table(3)
        wrong = data.set_column(1, "ra", pa.array(["10:20:30", "10:20:31", "10:20:32"]))
        path = write(wrong, tmp_path / format, format)
        with pytest.raises(ConfigError, match=r"column 'ra'.*\(columns\.ra\)|column 'ra' holds '10:20:30'"):
            check_columns([path], survey())


def test_pieces_of_an_import_that_changes_its_mind_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "PIECE_ROWS", 10)
    values = pa.array([*range(40), 2**63 + 5], pa.uint64())
    (path,) = files_of(tmp_path, "parquet", values, name="id")
    found = run(tmp_path, [path], survey(columns={"extra": []})).column("object_id").to_pylist()
    assert sorted(found) == sorted(map(str, values.to_pylist()))
