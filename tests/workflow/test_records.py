"""Records of the inputs and settings of jobs: the changes that make a job run, and those that do not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import zmill
from zmill.workflow import records
from zmill.workflow.job import job
from zmill.workflow.records import Home, changes

PARAMS = {
    "results": "results/sky",
    "bands": ["g", "r"],
    "cuts": {"faint": {"max": 24.0}},
    "seed": 1,
    "data_dir": "data",
}


def job_of(results: Path, params: dict[str, Any] = PARAMS) -> SimpleNamespace:
    """A job of two shards' files."""
    located = {key: str(results) if key == "results" else value for key, value in params.items()}
    return SimpleNamespace(
        log=[str(results / "logs" / "clean_shard" / "7.log")],
        input=[str(results / name) for name in ("imputation.json", "survey.csv")],
        output=[str(results / "progress" / "clean" / "7.json")],
        params=located,
        resources={},
    )


def run(results: Path, fail: bool = False) -> None:
    results.mkdir(parents=True, exist_ok=True)
    for name in ("imputation.json", "survey.csv"):
        if not (results / name).exists():
            (results / name).write_text(name)
    given = job_of(results)
    with job(given):
        if fail:
            raise ValueError("no")
        made = Path(given.output[0])
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text("done")


def reasons(results: Path, order_only: tuple[str, ...] = (), params: dict[str, Any] = PARAMS) -> list[str]:
    """The reasons why a job must run."""
    given = job_of(results, params)
    counted = [path for path in given.input if Path(path).name not in order_only]
    rest = [path for path in given.input if path not in counted]
    found = changes(Home.of(given.log[0], given.output), given.output, counted, given.params, rest)
    return [f"{what}: {', '.join(names)}" for what, names in found]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "sky"
    run(folder)
    return folder


def test_without_changes_no_job_runs(results: Path) -> None:
    assert reasons(results) == []


def test_results_may_be_moved_renamed_and_copied_without_times(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(results, tmp_path / "elsewhere" / "sky", copy_function=shutil.copyfile)
    assert reasons(tmp_path / "elsewhere" / "sky") == []
    monkeypatch.chdir(tmp_path)
    assert reasons(Path("results/sky")) == []
    for path in results.rglob("*"):
        os.utime(path, (2e9, 2e9))
    assert reasons(results) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": 2}, "Changed settings: seed"),
        ({"bands": ["r", "g"]}, "Changed settings: bands"),
        ({"cuts": {"faint": {"max": 24.5}}}, "Changed settings: cuts"),
        ({"another": None}, "Changed settings: another"),
        ({"seed": 2, "bands": []}, "Changed settings: bands, seed"),
    ],
)
def test_a_changed_parameter(results: Path, change: dict[str, Any], reason: str) -> None:
    assert reasons(results, params=PARAMS | change) == [reason]


def test_where_the_data_are_changes_nothing(results: Path) -> None:
    assert reasons(results, params=PARAMS | {"data_dir": "/elsewhere"}) == []


def test_a_parameter_that_is_gone(results: Path) -> None:
    assert reasons(results, params={key: value for key, value in PARAMS.items() if key != "seed"}) == [
        "Changed settings: seed"
    ]


def test_a_changed_input_counts_by_content_unless_it_gives_order_alone(results: Path) -> None:
    (results / "survey.csv").write_text("other")
    assert reasons(results) == ["Changed input: ./survey.csv"]
    assert reasons(results, order_only=("survey.csv",)) == []
    (results / "survey.csv").unlink()
    assert reasons(results) == ["Changed input: ./survey.csv"]


def test_a_large_input_of_the_same_size_and_time_is_not_read_again(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LARGE", 1)
    monkeypatch.setattr(records, "file_hash", lambda path: pytest.fail(f"{path} was read") if "csv" in path else "hash")
    home = Home.of(job_of(results).log[0], job_of(results).output)
    found = records.read(home)
    assert found is not None
    entries = records.inputs(home, [str(results / "survey.csv")], found["inputs"])
    assert entries == {"./survey.csv": found["inputs"]["./survey.csv"]}


def test_another_set_of_inputs(results: Path) -> None:
    given = job_of(results)
    found = changes(Home.of(given.log[0], given.output), given.output, given.input[:1], given.params)
    assert found == [("Changed input", ["./survey.csv"])]


def test_a_missing_output_comes_before_all(results: Path) -> None:
    Path(job_of(results).output[0]).unlink()
    assert reasons(results) == ["Missing output: ./progress/clean/7.json"]


def test_another_version_and_another_script(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "__version__", "99")
    assert reasons(results) == [f"Another version of zmill: {zmill.__version__}, now 99"]
    monkeypatch.undo()
    monkeypatch.setattr(records, "script", lambda rule: "other")
    assert reasons(results) == ["Changed script: clean_shard"]


@pytest.mark.parametrize("damage", ["", "{", '{"zmill": "0.1.0"}', "[]", "\x00\xff"])
def test_a_record_that_cannot_be_read_is_none(results: Path, damage: str) -> None:
    given = job_of(results)
    Home.of(given.log[0], given.output).record.write_text(damage, encoding="latin-1")
    assert reasons(results) == ["There is no record of a complete job: "]


def test_a_job_that_failed_or_was_killed_has_no_record(results: Path) -> None:
    with pytest.raises(SystemExit):
        run(results, fail=True)
    assert reasons(results) == ["There is no record of a complete job: "]


def test_outputs_elsewhere_have_their_record_in_the_same_folder(tmp_path: Path) -> None:
    log = str(tmp_path / "logs" / "results" / "demo" / "logs" / "demo_data.log")
    outputs = [str(tmp_path / "data" / "demo" / folder / "file") for folder in ("survey", "specz")]
    for given in (log, os.path.relpath(log)):
        home = Home.of(given, outputs)
        assert home == Home(tmp_path / "data" / "demo" / ".demo_data.json", None, "demo_data")
        assert records.inputs(home, outputs) == {}
    log = str(tmp_path / "logs" / "results" / "demo_gaia" / "logs" / "demo_spectra" / "gaia.log")
    home = Home.of(log, [str(tmp_path / "data" / "demo_gaia" / f"{name}.parquet") for name in ("clean", "noisy")])
    assert home == Home(tmp_path / "data" / "demo_gaia" / ".demo_spectra.json", None, "demo_spectra")
