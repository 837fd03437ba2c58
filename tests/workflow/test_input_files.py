"""The files that a run starts from: patterns, files still to be made, and messages where one is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from survey.small_survey import survey, table, write
from zmill.config import ConfigError
from zmill.inputs.registry import further_files
from zmill.survey_definition import LabelSource, Survey
from zmill.workflow.input_files import find


def test_patterns_are_expanded_in_order(tmp_path: Path) -> None:
    paths = [str(write(table(3), tmp_path / "sky [a]" / str(n), "parquet")) for n in (2, 0, 1)]
    assert find(survey(files=["*/s.parquet"]), tmp_path / "sky [a]").survey == sorted(paths)
    one = find(survey(files=[paths[0], "0/*.parquet"]), tmp_path / "sky [a]")
    assert one.survey == [paths[0], paths[1]]


def test_files_that_a_rule_will_make_are_taken_on_trust(tmp_path: Path) -> None:
    coming = {tmp_path / f"demo/part-{n}.parquet" for n in range(3)}
    assert find(survey(files=["demo/part-*.parquet"]), tmp_path, coming).survey == sorted(map(str, coming))
    with pytest.raises(ConfigError, match="files: no file fits"):
        find(survey(files=["demo/part-*.parquet"]), tmp_path)


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write(table(3), tmp_path, "parquet")
    with pytest.raises(ConfigError, match=r"files: there is no .*t\.parquet; did you mean 's\.parquet'\?"):
        find(survey(files=["t.parquet"]), tmp_path)
    with pytest.raises(ConfigError, match=r"the folder .*nowhere does not exist; check data_dir"):
        find(survey(files=["s.parquet"]), tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is named twice"):
        find(survey(files=["s.parquet", "*.parquet"]), tmp_path)
    with_map = survey(files=["s.parquet"], extinction={"coefficients": {"g": 3, "r": 2, "i": 1}, "map": "ebv.fits"})
    with pytest.raises(ConfigError, match=r"extinction\.map: there is no"):
        find(with_map, tmp_path, further=further_files(with_map))


@pytest.mark.parametrize(
    "spelled", ["./s.parquet", "d/../s.parquet", "link.parquet", "hard.parquet", "{folder}/s.parquet"]
)
def test_a_file_by_two_spellings_is_one(tmp_path: Path, spelled: str) -> None:
    write(table(3), tmp_path, "parquet")
    (tmp_path / "d").mkdir()
    (tmp_path / "link.parquet").symlink_to("s.parquet")
    (tmp_path / "hard.parquet").hardlink_to(tmp_path / "s.parquet")
    with pytest.raises(ConfigError, match="is named twice"):
        find(survey(files=["s.parquet", spelled.format(folder=tmp_path)]), tmp_path)


def test_a_file_with_braces_in_its_name_is_refused(tmp_path: Path) -> None:
    write(table(3), tmp_path, "parquet").rename(tmp_path / "s{1}.parquet")
    with pytest.raises(ConfigError, match=r"files: found braces in .*wildcards in Snakemake"):
        find(survey(files=["s*.parquet"]), tmp_path)


def test_files_of_label_sources_are_found_by_source(tmp_path: Path) -> None:
    write(table(3), tmp_path, "parquet")
    write(table(3), tmp_path, "csv")
    labels = [
        {"name": "both", "files": ["s.*"]},
        {"name": "one", "files": ["s.csv"]},
        {"name": "service", "source": "ned"},
    ]
    definition = survey(files=["s.parquet"]).model_copy(
        update={"labels": [LabelSource.model_validate(label) for label in labels]}
    )
    found = find(definition, tmp_path)
    csv, parquet = str(tmp_path / "s.csv"), str(tmp_path / "s.parquet")
    assert found.sources == {"both": [csv, parquet], "one": [csv], "service": []}
    assert found.labels == [csv, parquet], "each once"
    labels[1]["files"] = ["t.csv"]
    wrong = definition.model_copy(update={"labels": [LabelSource.model_validate(label) for label in labels]})
    with pytest.raises(ConfigError, match=r"labels: one: files: there is no .*t\.csv; did you mean 's\.csv'\?"):
        find(wrong, tmp_path)


def test_tables(tmp_path: Path) -> None:
    write(table(3), tmp_path, "csv")
    write(table(3), tmp_path, "parquet")
    columns = {"ra": None, "dec": None, "redshift": "size"}
    definition = survey(files=[], tables={"train": ["s.csv"], "test": ["*.parquet"]}, columns=columns)
    found = find(definition, tmp_path)
    assert (found.train, found.test) == ([str(tmp_path / "s.csv")], [str(tmp_path / "s.parquet")])
    assert not found.survey
    definition = survey(files=[], tables={"train": ["s.csv"], "test": ["u.csv"]}, columns=columns)
    with pytest.raises(ConfigError, match=r"tables\.test: there is no"):
        find(definition, tmp_path)


def test_a_table_that_trains_and_tests_is_refused_however_it_is_spelled(tmp_path: Path) -> None:
    write(table(3), tmp_path, "parquet")
    (tmp_path / "below").mkdir()
    (tmp_path / "linked.parquet").symlink_to(tmp_path / "s.parquet")
    columns = {"flux": "{band}", "redshift": "z"}
    for test in ("s.parquet", "below/../s.parquet", "linked.parquet", str(tmp_path / "s.parquet")):
        values = {"tables": {"train": ["s.parquet"], "test": [test]}, "columns": columns, "bands": ["g"]}
        with pytest.raises(ConfigError, match=r"tables\.test: .*is a training table, too"):
            find(Survey.model_validate(values), tmp_path)
