"""Faults of columns are told before any job, each with what is nearest."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_survey import survey, table, write

from zmill.config import ConfigError
from zmill.survey.check import check_columns


def test_missing_columns_name_key_file_and_nearest(tmp_path: Path) -> None:
    path = write(table(3), tmp_path, "csv")
    wrong = survey(files=["s.csv"], columns={"object_id": "idd", "flux": "mag{band}", "extra": ["siz"]})
    with pytest.raises(ConfigError) as caught:
        check_columns([path], wrong)
    text = str(caught.value)
    assert "s.csv: there is no column 'idd' (columns.object_id); did you mean 'id'?" in text
    assert "there is no column 'magg' (columns.flux of band g); did you mean 'mag_g'?" in text
    assert "there is no column 'siz' (columns.extra); did you mean 'size'?" in text


def test_an_unreadable_file_is_named_and_one_that_is_to_be_made_is_not_missed(tmp_path: Path) -> None:
    (tmp_path / "s.fits").write_text("<html>")
    with pytest.raises(ConfigError, match=r"s\.fits: is not a readable fits table"):
        check_columns([tmp_path / "s.fits"], survey(files=["s.fits"]))
    check_columns([tmp_path / "t.fits"], survey(files=["t.fits"]))


def test_one_wrong_column_of_many_files_is_one_line(tmp_path: Path) -> None:
    paths = [write(table(3), tmp_path / str(number), "csv") for number in range(40)]
    with pytest.raises(ConfigError) as caught:
        check_columns(paths, survey(files=["*/s.csv"], columns={"object_id": "idd"}))
    assert str(caught.value).splitlines() == [
        f"{paths[0]}: there is no column 'idd' (columns.object_id); did you mean 'id'? (and the same in 39 more files)"
    ]


def test_a_wrong_template_is_one_line(tmp_path: Path) -> None:
    path = write(table(3), tmp_path, "csv")
    with pytest.raises(ConfigError) as caught:
        check_columns([path], survey(files=["s.csv"], columns={"flux": "magnitude_{band}"}))
    lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert "there is no column 'magnitude_g' (columns.flux of band g)" in lines[0] and "'magnitude_r'" in lines[0]
