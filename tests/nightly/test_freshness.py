"""Jobs run by the records of the inputs and settings of each result, not by Snakemake's metadata or modification times.

Each setting, file and script that a result depends on is changed in turn. A dry run in this process, without `.snakemake`, gives
the rules that run because of their own record; Snakemake adds the jobs that depend on them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import night_sky
import pyarrow as pa
import pytest
import yaml
from night_sky import Sky
from pydantic import BaseModel

from tiny import prepare, snakemake_here
from zmill.config import Config, ConfigError, load
from zmill.survey.importer import import_settings
from zmill.survey_definition import Survey
from zmill.workflow import records

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

Plan = Callable[..., dict[str, set[str]]]
SETTINGS = "changed settings"


@pytest.fixture(scope="module")
def done(base: Sky, tmp_path_factory: pytest.TempPathFactory) -> Sky:
    """A copy of the first night without Snakemake's metadata; tests undo their changes."""
    return night_sky.copy(base, tmp_path_factory.mktemp("fresh") / "sky")


@pytest.fixture
def plan(capfd: pytest.CaptureFixture[str]) -> Plan:
    """A dry run in a folder without Snakemake's metadata: reason -> rules that run for it by their own record."""

    def run(folder: Path, *arguments: str, target: str = "refresh", metadata: bool = False) -> dict[str, set[str]]:
        if not metadata:
            shutil.rmtree(folder / ".snakemake", ignore_errors=True)
        before = state(folder)
        code, text = snakemake_here(folder, capfd, "--dry-run", target, *arguments)
        assert code == 0, text[-4000:]
        assert state(folder) == before, "a dry run writes nothing"
        reasons = {
            reason: set(rules.split(", "))
            for reason, rules in re.findall(r"^    ([\w ]+):\n        (.*)$", text, re.MULTILINE)
        }
        assert bool(reasons) != ("Nothing to be done" in text), text[-4000:]
        reasons.pop("input files updated by another job", None)
        return reasons

    return run


def state(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every file of the data and the results."""
    found = [path for name in ("data", "results") for path in (folder / name).rglob("*") if path.is_file()]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@contextmanager
def changed(path: Path, content: str | bytes | None) -> Iterator[None]:
    """A file with other content, or away, while the block runs."""
    before, times = path.read_bytes(), path.stat()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    try:
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@contextmanager
def other_yaml(path: Path, **values: Any) -> Iterator[None]:
    """A YAML file with some keys changed while the block runs."""
    found = yaml.safe_load(path.read_text(encoding="utf-8")) | values
    with changed(path, yaml.safe_dump(found, sort_keys=False)):
        yield


# ------------------------------------------------------------------------------------------------ nothing changed


def test_no_job_runs_after_a_move_a_rename_other_times_or_without_metadata(
    done: Sky, plan: Plan, tmp_path: Path
) -> None:
    assert plan(done.folder) == {}
    assert plan(done.folder, "--rerun-triggers", "mtime") == {}
    assert plan(done.folder, "--config", f"results_dir={done.folder / 'results'}") == {}
    assert plan(done.folder, "--config", f"data_dir={done.folder / 'data'}") == {}
    copied = Sky(tmp_path / "copy")
    shutil.copytree(done.folder, copied.folder, copy_function=shutil.copyfile, symlinks=True)  # with new times
    assert plan(copied.folder) == {}
    for path in [*copied.results.rglob("*"), *copied.tiles]:
        os.utime(path, (4e9, 4e9), follow_symlinks=False)
    assert plan(copied.folder) == {}
    for name in ("surveys", "config.yaml"):  # another working folder, the same results
        shutil.move(copied.folder / name, tmp_path / name)
    folders = [f"results_dir={copied.folder / 'results'}", f"data_dir={copied.folder / 'data'}"]
    assert plan(tmp_path, "--config", *folders) == {}
    with other_yaml(tmp_path / "config.yaml", seed=2):
        assert "train_model" in plan(tmp_path, "--config", *folders)[SETTINGS]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b'{"params": 3, "input": "x"}', b"\xff\xfe\x00", b'{"incomplete": true}']
)
def test_damaged_or_wrong_metadata_of_snakemake_changes_no_plan(
    base: Sky, plan: Plan, tmp_path: Path, damage: bytes
) -> None:
    sky = night_sky.copy(base, tmp_path / "sky")
    for path in (sky.folder / ".snakemake" / "metadata").rglob("*"):
        if path.is_file():
            path.write_bytes(damage)
            marked = sky.folder / ".snakemake" / "incomplete" / path.name
            marked.parent.mkdir(exist_ok=True)
            marked.write_bytes(damage)
    assert plan(sky.folder, metadata=True) == {}
    with other_yaml(sky.folder / "config.yaml", seed=2):
        assert "train_model" in plan(sky.folder, metadata=True)[SETTINGS]


# ------------------------------------------------------------------------------------------------ settings

RULES_OF_KEY: dict[str, set[str] | None] = {
    "survey": None,
    "data_dir": None,
    "results_dir": None,
    "seed": {"split", "retrain_check", "colors", "sample", "train_model", "evaluate_model"},
    "demo": set(),
    "partitions": {"import_survey", "labels"},
    "partitions.shard_rows": {"import_survey"},
    "labels": {"labels"},
    "crossmatch.radius_arcsec": {"labels"},
    "crossmatch.margin_arcsec": set(),
    "crossmatch.ambiguous": {"crossmatch", "split", "retrain_check"},
    "split": {"split", "retrain_check"},
    "clean": {"clean_shard", "colors", "retrain_check"},
    "weights": {"sample"},
    "weights.train": {"train_model"},
    "models": {"train_model"},
    "refit": {"train_model"},
    "tune": set(),
    "retrieve": set(),
    "select": {"select_model", "champion"},
    "predict": {"predict_shard"},
    "refresh.labels_changed": {"retrain_check"},
    "refresh.every": {"retrain_check"},
    "refresh.margin": {"champion"},
    "refresh.budget": set(),
    "gates": {"gates"},
    "release": {"release"},
}
"""Rules that run by their own record when a setting of `config.yaml` changes, by section or key; None: the key is a location."""
OTHER: dict[str, Any] = {
    "demo.seds": ["spectra.csv"],
    "models": {"knn": {"k": [7]}},
    "tune": {"knn": {"space": {"k": [[5], [7]]}, "trials": 2}},
    "retrieve": ["12"],
    "select.metric": "sigma_nmad",
    "gates.metrics": {"crps": 1.0},
    **{
        f"split.{side}": {"train": 0.4, "valid": 0.2, "calib": 0.2, "test": 0.2} for side in ("train", "valid", "calib")
    },
    "split.test": {"train": 0.5, "valid": 0.15, "calib": 0.1, "test": 0.25},
    "models.again": None,
}
"""Another value of a key; for a fraction of the split, of its section."""


def keys(section: type[BaseModel], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a section and of its subsections, with its type."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, f"{above}{name}.")
        else:
            yield above + name, kind


def candidates(value: Any, kind: Any) -> list[Any]:
    """Other values of a key, of which some may be invalid."""
    if get_origin(kind) is Literal:
        return [other for other in get_args(kind) if other != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, float):
        return [0.9 * value, 1.1 * value, value + 0.1]
    return [1.0, "another", [], {}] if value is None else []


def another(key: str, kind: Any, config: dict[str, Any], surveys: Path) -> dict[str, Any]:
    """A valid configuration with another value of a key."""
    section, _, name = key.rpartition(".")
    filled = load(config, surveys)[0].model_dump(mode="json")
    now = filled[section][name] if section else filled[name]
    for value in [OTHER[key]] if key in OTHER else candidates(now, kind):
        whole = key.startswith("split.") and isinstance(value, dict)
        there = value if whole else filled[section] | {name: value} if section else value
        tried = config | {section or name: there if not whole else filled["split"] | value}
        try:
            load(tried, surveys)
        except ConfigError:
            continue
        return tried
    raise AssertionError(f"{key}: add another value of it to OTHER")


@pytest.mark.parametrize(("key", "kind"), [pytest.param(key, kind, id=key) for key, kind in keys(Config)])
def test_every_setting(done: Sky, plan: Plan, key: str, kind: Any) -> None:
    path = done.folder / "config.yaml"
    named = key if key in RULES_OF_KEY else key.partition(".")[0]
    assert named in RULES_OF_KEY, f"{key}: add the rules that run when it changes to RULES_OF_KEY"
    wanted = RULES_OF_KEY[named]
    if wanted is None:
        return
    tried = another(key, kind, yaml.safe_load(path.read_text()), done.folder / "surveys")
    with changed(path, yaml.safe_dump(tried, sort_keys=False)):
        rules = plan(done.folder).get(SETTINGS, set())
    assert rules >= wanted, f"{key}: {rules} run"
    if wanted <= {"gates", "release", "champion", "retrain_check"}:
        assert rules - wanted <= {"report", "release", "gates"}, "no job runs without a reason"


CHANGED_SURVEY: dict[str, tuple[dict[str, Any], set[str]] | None] = {
    "description": ({"description": "another"}, set()),
    "tables": None,
    "check_units": None,
    "columns": ({"columns": {"extra": ["saturated"]}}, {"import_survey", "split", "retrain_check"}),
    "filters": ({"filters": {"u": "sdss2010-u"}}, {"train_model"}),
    "reference_band": ({"reference_band": "r"}, {"crossmatch", "sample", "train_model"}),
    "sentinels": ({"sentinels": {"nonfinite": "undetected"}}, {"import_survey", "split", "retrain_check"}),
    "extinction": ({"extinction": {"coefficients": {}}}, {"import_survey", "split", "retrain_check"}),
    "cuts": ({"cuts": {}}, {"split", "retrain_check", "clean_shard"}),
    "labels": ({"labels": []}, {"labels"}),
    "redshift_grid": ({"redshift_grid": {"max": 2.0}}, {"train_model"}),
    "odds_width": ({"odds_width": 0.05}, {"train_model"}),
}
"""Keys of a survey definition: changes, and the rules that run by their own record; None: the key changes no result, or belongs to
another kind of survey. All other keys are settings of the import."""


@pytest.mark.parametrize("key", list(Survey.model_fields))
def test_every_key_of_the_survey_definition(done: Sky, plan: Plan, key: str) -> None:
    path = done.folder / "surveys" / "night.yaml"
    definition = yaml.safe_load(path.read_text())
    if key not in CHANGED_SURVEY:
        assert key in import_settings(load({"survey": "night"}, path.parent)[1]), (
            f"{key}: add the rules that run to CHANGED_SURVEY"
        )
        return
    change = CHANGED_SURVEY[key]
    if change is None:
        return
    values, wanted = change
    if key == "labels":
        values = {"labels": [definition["labels"][0] | {"quality": 3}]}
    elif key in ("cuts", "extinction", "redshift_grid"):
        pass
    elif isinstance(values[key], dict):
        values = {key: definition[key] | values[key]}
    if key == "columns":
        values["cuts"] = definition["cuts"]
    if key == "redshift_grid":
        values = {key: definition[key] | values[key]}
    with other_yaml(path, **values):
        rules = plan(done.folder).get(SETTINGS, set())
    assert rules >= wanted, rules
    assert key in ("columns", "sentinels", "extinction") or "import_survey" not in rules


# ------------------------------------------------------------------------------------------------ files and code


def test_rows_of_the_survey_and_of_labels_count_and_their_times_do_not(done: Sky, plan: Plan) -> None:
    tile, held = done.tiles[3], done.folder / "held"
    for path in (tile, done.spectra):
        times = path.stat()
        os.utime(path)
        assert plan(done.folder) == {}
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with changed(tile, tile.read_bytes()):
        done.change(tile)
        assert plan(done.folder) == {SETTINGS: {"import_survey"}}
    tile.rename(held)
    assert plan(done.folder) == {SETTINGS: {"import_survey"}}
    held.rename(tile)
    labels = done.labels()
    with changed(done.spectra, done.spectra.read_bytes()):
        done.write_labels(pa.concat_tables([labels, night_sky.later_labels(done).slice(0, 3)]))
        assert plan(done.folder) == {SETTINGS: {"labels"}}
    assert plan(done.folder) == {}


def test_files_that_the_settings_of_a_model_name_count_by_content(done: Sky, plan: Plan) -> None:
    named = done.folder / "uniform"  # a value of the model's settings
    assert (
        load(yaml.safe_load((done.folder / "config.yaml").read_text()), done.folder / "surveys")[0].models["knn"].files
        == []
    )
    named.write_text("SEDs")
    assert plan(done.folder) == {SETTINGS: {"train_model"}}
    named.unlink()
    assert plan(done.folder) == {}


def test_what_a_stage_reads_of_another_counts_by_content(done: Sky, plan: Plan) -> None:
    for name, rules in {
        "imputation.json": {"clean_shard", "sample", "train_model", "evaluate_model", "report"},
        "survey/shards/0.csv": {"clean_shard"},
        "models/knn/model.json": {"evaluate_model", "champion", "report"},
        "evaluation/best.json": {"champion", "release", "report"},
    }.items():
        path = done.results / name
        with changed(path, path.read_bytes() + b"\n"):
            assert plan(done.folder) == {"changed input": rules}, name
    with changed(done.results / "matches.json", None):
        assert plan(done.folder)["missing output"] == {"crossmatch"}


def test_a_model_that_is_added_and_one_that_is_taken_out(done: Sky, plan: Plan) -> None:
    with other_yaml(done.folder / "config.yaml", models={"knn": {"k": [11]}, "trainz": {}}):
        found = plan(done.folder)
        assert found["missing output"] == {"train_model", "evaluate_model"}
        assert found["changed input"] >= {"select_model", "report"} and "champion" in found[SETTINGS]
    with other_yaml(done.folder / "config.yaml", models={"trainz": {}}):
        found = plan(done.folder)
        assert found["changed input"] >= {"select_model", "report"} and "champion" in found[SETTINGS]


def test_another_version_and_another_script(done: Sky, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    every = {path.name.removesuffix(".json") for path in (done.results / "progress" / "records").iterdir()}
    monkeypatch.setattr(records, "__version__", "99")
    behind = {"clean_shard", "clean_catalog", "predict_shard", "photoz_catalog"}
    assert plan(done.folder) == {"another version of zmill": every - behind}, "shards are planned after the import"
    monkeypatch.undo()
    script = records.script
    monkeypatch.setattr(records, "script", lambda rule: "other" if rule == "gates" else script(rule))
    assert plan(done.folder) == {"changed script": {"gates"}}


def test_results_without_records_are_computed_again_with_a_log_line(
    base: Sky, plan: Plan, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sky = night_sky.copy(base, tmp_path / "sky")
    shutil.rmtree(sky.results / "progress" / "records")
    found = sky.refresh("--dry-run")
    assert "made by a version of zmill without records" in found.text
    assert plan(sky.folder).keys() == {"there is no record of a complete job"}


def test_the_demo_sky_is_made_again_for_another_area_or_seed(plan: Plan, tmp_path: Path) -> None:
    prepare(tmp_path, demo={"area": 0.05}, models={"knn": {}})
    sky = Sky(tmp_path)
    assert sky.refresh(target="demo_data").jobs == {"demo_data": 1}
    assert plan(tmp_path, target="demo_data") == {}
    assert plan(tmp_path, "--config", "results_dir=elsewhere", target="demo_data") == {}
    for other in ("seed=2", "demo={area: 0.06}"):
        assert plan(tmp_path, "--config", other, target="demo_data") == {SETTINGS: {"demo_data"}}
