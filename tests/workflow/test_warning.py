"""Warnings: logged, kept by each stage, found again in the order of the stages."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from zmill.catalog.files import write_json
from zmill.workflow.warning import NOTES, Warnings, collect


def test_a_warning_is_logged_once_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    warnings = Warnings()
    with caplog.at_level(logging.WARNING, logger="zmill"):
        warnings.add("30 % of the labels are beyond the grid")
        warnings.add("30 % of the labels are beyond the grid")
    assert warnings == ["30 % of the labels are beyond the grid"]
    assert [record.getMessage() for record in caplog.records] == warnings


def test_warnings_of_all_stages_are_found_in_the_order_of_the_stages(tmp_path: Path) -> None:
    assert collect(tmp_path) == []
    write_json(tmp_path / NOTES["split"], {"warnings": Warnings(["b"]), "steps": []})
    write_json(tmp_path / NOTES["import"], {"imported": 3, "warnings": ["a1", "a2"]})
    write_json(tmp_path / NOTES["labels"], {"entries": 3})
    assert collect(tmp_path) == [("import", "a1"), ("import", "a2"), ("split", "b")]


@pytest.mark.parametrize(
    "content",
    ["", "{", "\0" * 200, "[1]", "3", '{"warnings": 3}', '{"warnings": ["a"], "file_xxh3": "0123456789abcdef"\n}\n'],
)
def test_a_damaged_file_hides_no_other_warning(tmp_path: Path, content: str) -> None:
    (tmp_path / NOTES["import"]).write_text(content)
    write_json(tmp_path / NOTES["split"], {"warnings": ["b"]})
    (stage, text), other = collect(tmp_path)
    assert stage == "import" and "import.json: damaged (" in text and "snakemake --cores 2 mend" in text
    assert other == ("split", "b")
