"""Faults of files and columns are told before any job, each with what is nearest."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_survey import survey, table, write

from zmill.config import ConfigError
from zmill.survey.check import check_files, check_tables


def test_patterns_are_expanded_in_order(tmp_path: Path) -> None:
    paths = [write(table(3), tmp_path / "sky [a]" / str(n), "parquet") for n in (2, 0, 1)]
    assert check_files(survey(files=["*/s.parquet"]), tmp_path / "sky [a]") == sorted(paths)
    one = check_files(survey(files=[str(paths[0]), "0/*.parquet"]), tmp_path / "sky [a]")
    assert one == [paths[0], paths[1]]


def test_files_that_a_rule_will_make_are_taken_on_trust(tmp_path: Path) -> None:
    coming = {tmp_path / f"demo/part-{n}.parquet" for n in range(3)}
    assert check_files(survey(files=["demo/part-*.parquet"]), tmp_path, coming) == sorted(coming)
    with pytest.raises(ConfigError, match="files: no file fits"):
        check_files(survey(files=["demo/part-*.parquet"]), tmp_path)


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write(table(3), tmp_path, "parquet")
    with pytest.raises(ConfigError, match=r"files: there is no .*t\.parquet; did you mean 's\.parquet'\?"):
        check_files(survey(files=["t.parquet"]), tmp_path)
    with pytest.raises(ConfigError, match=r"the folder .*nowhere does not exist; check data_dir"):
        check_files(survey(files=["s.parquet"]), tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is named twice"):
        check_files(survey(files=["s.parquet", "*.parquet"]), tmp_path)


def test_missing_columns_name_key_file_and_nearest(tmp_path: Path) -> None:
    write(table(3), tmp_path, "csv")
    wrong = survey(files=["s.csv"], columns={"object_id": "idd", "flux": "mag{band}", "extra": ["siz"]})
    with pytest.raises(ConfigError) as caught:
        check_files(wrong, tmp_path)
    text = str(caught.value)
    assert "s.csv: there is no column 'idd' (columns.object_id); did you mean 'id'?" in text
    assert "there is no column 'magg' (columns.flux of band g); did you mean 'mag_g'?" in text
    assert "there is no column 'siz' (columns.extra); did you mean 'size'?" in text


def test_unreadable_file_and_map(tmp_path: Path) -> None:
    (tmp_path / "s.fits").write_text("<html>")
    with pytest.raises(ConfigError, match=r"s\.fits: is not a readable fits table"):
        check_files(survey(files=["s.fits"]), tmp_path)
    write(table(3), tmp_path, "parquet")
    with_map = survey(files=["s.parquet"], extinction={"coefficients": {"g": 3, "r": 2, "i": 1}, "map": "ebv.fits"})
    with pytest.raises(ConfigError, match=r"extinction\.map: there is no"):
        check_files(with_map, tmp_path)


def test_tables(tmp_path: Path) -> None:
    write(table(3), tmp_path, "csv")
    write(table(3), tmp_path, "parquet")
    columns = {"ra": None, "dec": None, "redshift": "size"}
    definition = survey(files=[], tables={"train": ["s.csv"], "test": ["*.parquet"]}, columns=columns)
    assert check_tables(definition, tmp_path) == ([tmp_path / "s.csv"], [tmp_path / "s.parquet"])
    definition = survey(files=[], tables={"train": ["s.csv"], "test": ["u.csv"]}, columns=columns)
    with pytest.raises(ConfigError, match=r"tables\.test: there is no"):
        check_tables(definition, tmp_path)
