"""The workflow as a person runs it: its targets, its messages, and a small sky from end to end."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from tiny import ROOT, TINY, prepare, snakemake, snakemake_here
from zmill.catalog import hats

Capture = pytest.CaptureFixture[str]


def test_documented_targets_are_listed(tmp_path: Path) -> None:
    prepare(tmp_path)
    answer = snakemake(tmp_path, "--list-target-rules")
    assert answer.returncode == 0, answer.stderr
    for target in (
        "all",
        "demo_data",
        "labels",
        "crossmatch",
        "train",
        "tune",
        "evaluate",
        "predict",
        "report",
        "release",
        "refresh",
        "verify",
        "rollback",
        "resume",
    ):
        assert re.search(rf"^{target} \(.{{10,}}\)$", answer.stdout, flags=re.MULTILINE), f"{target} has no description"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"survy": "demo"}, "config.yaml: survy: unknown key; did you mean 'survey'?"),
        ({"survey": "dmeo"}, "there is no surveys/dmeo.yaml; did you mean 'demo'?"),
        ({"models": {"knm": {}}}, "did you mean 'knn'?"),
        ({"models": {"knn": {"scalling": "minmax"}}}, "did you mean 'scaling'?"),
        ({"select": {"metric": "crsp"}}, "did you mean 'crps'?"),
        ({"gates": {"metrics": {"crsp": 0.1}}}, "gates.metrics: there is no metric 'crsp'; did you mean 'crps'?"),
        ({"tune": {"fcn": {"space": {"lr": [0.001]}}}}, "there is no 'fcn' under models:; did you mean 'fcnn'?"),
        ({"tune": {"fcnn": {"space": {"lr": [0]}}}}, "tune.fcnn.space: lr: expected above 0, found 0"),
        ({"crossmatch": {"radius_arcsec": 30}}, "beyond crossmatch.margin_arcsec"),
        ({"survey": "zcosmos", "data_dir": "nowhere"}, "nowhere/zcosmos/zcosmos_bright20k.csv"),
    ],
)
def test_a_wrong_setting_stops_the_run_before_any_job(
    tmp_path: Path, config: dict, message: str, capfd: Capture
) -> None:
    prepare(tmp_path, **config)
    code, text = snakemake_here(tmp_path, capfd, "--dry-run")
    assert code == 1
    assert message in text
    assert "Traceback" not in text


def test_a_search_of_no_model_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path)
    answer = snakemake(tmp_path, "tune", "--cores", "1", "--dry-run")
    assert answer.returncode != 0
    assert "config.yaml: tune: names no model, so there is nothing to search" in answer.stderr + answer.stdout


def own_survey(folder: Path, **changes: object) -> None:
    """A survey of four rows with a file of spectra, defined in the working folder's own `surveys/`."""
    (folder / "mine.csv").write_text(
        "id,ra,dec,mag_g,mag_r\n1,10,0,20,19\n2,10.1,0,21,20\n3,10.2,0,22,21\n4,10.3,0,23,22\n"
    )
    (folder / "spectra.csv").write_text("ra,dec,z\n10,0,0.1\n10.1,0,0.2\n")
    survey = {
        "files": ["mine.csv"],
        "columns": {"object_id": "id", "ra": "ra", "dec": "dec", "flux": "mag_{band}"},
        "bands": ["g", "r"],
        "labels": [
            {
                "name": "spectra",
                "source": "file",
                "files": ["spectra.csv"],
                "columns": {"ra": "ra", "dec": "dec", "redshift": "z"},
                "quality": 4,
            }
        ],
    }
    (folder / "surveys").mkdir()
    (folder / "surveys" / "mine.yaml").write_text(yaml.safe_dump({**survey, **changes}))
    prepare(folder, survey="mine", data_dir=".")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": ["yours.csv"]}, "yours.csv"),
        ({"columns": {"object_id": "id", "ra": "ra", "dec": "dec", "flux": "magg_{band}"}}, "magg_g"),
        ({"bands": ["g", "r", "g"]}, "band g is named twice"),
        ({"cuts": {"bright": {"column": "mag_z", "max": 20}}}, "mag_z"),
        ({"labels": []}, "no source of spectroscopic redshifts"),
        ({"labels": [{"name": "x", "source": "fiel"}]}, "did you mean 'file'?"),
    ],
)
def test_a_wrong_survey_definition_stops_the_run_before_any_job(
    tmp_path: Path, changes: dict, message: str, capfd: Capture
) -> None:
    own_survey(tmp_path, **changes)
    code, text = snakemake_here(tmp_path, capfd, "--dry-run")
    assert code == 1
    assert message in text
    assert "Traceback" not in text


def test_too_few_labels_are_refused_before_any_job(tmp_path: Path, capfd: Capture) -> None:
    own_survey(tmp_path)
    code, text = snakemake_here(tmp_path, capfd)
    assert code == 1
    assert "needs at least 50 training rows; surveys/mine.yaml has 2 labels" in text
    assert not (tmp_path / "results").exists()


def test_a_survey_without_rows_is_refused_before_any_job(tmp_path: Path, capfd: Capture) -> None:
    own_survey(tmp_path)
    (tmp_path / "mine.csv").write_text("id,ra,dec,mag_g,mag_r\n")
    code, text = snakemake_here(tmp_path, capfd)
    assert code == 1
    assert "surveys/mine.yaml: files: there is no row in mine.csv" in text
    assert "Traceback" not in text
    assert not (tmp_path / "results").exists()


def test_positions_that_are_no_numbers_are_refused_before_any_job(tmp_path: Path, capfd: Capture) -> None:
    own_survey(tmp_path)
    (tmp_path / "mine.csv").write_text("id,ra,dec,mag_g,mag_r\n1,10:20:30,0,20,19\n")
    code, text = snakemake_here(tmp_path, capfd, "--dry-run")
    assert code == 1
    assert "line 2: column 'ra' holds '10:20:30', expected a number" in text
    assert "Traceback" not in text


def test_labels_elsewhere_on_the_sky_are_refused_with_both_footprints_before_any_job(
    tmp_path: Path, capfd: Capture
) -> None:
    own_survey(tmp_path)
    (tmp_path / "spectra.csv").write_text("ra,dec,z\n200,40,0.1\n")
    code, text = snakemake_here(tmp_path, capfd)
    assert code == 1
    message = next(line for line in text.splitlines() if "do not overlap" in line)
    assert "ra 9.97" in message and "ra 200" in message
    assert not (tmp_path / "results").exists()


@pytest.mark.workflow
def test_a_run_that_fails_ends_with_the_log_and_the_cause_and_goes_on_when_the_data_are_right(tmp_path: Path) -> None:
    own_survey(tmp_path)
    ra = [f"{10 + number / 100_000:.5f}" for number in range(100_000)]
    rows = [f"{number},{place},0,20,19\n" for number, place in enumerate(ra)]
    survey = tmp_path / "mine.csv"
    head = "id,ra,dec,mag_g,mag_r\n"
    survey.write_text(head + "".join(f"7,{place},0,20,19\n" for place in ra))  # found by the import, not before it
    (tmp_path / "spectra.csv").write_text("ra,dec,z\n" + "".join(f"{place},0,0.1\n" for place in ra[:5_000]))
    imported = "results/mine/survey/partition_info.csv"
    command = ("--cores", "1", "--retries", "1", imported)

    answer = snakemake(tmp_path, *command)
    assert answer.returncode == 1
    log = "results/mine/logs/import_survey.log"
    end = (answer.stdout + answer.stderr).split("zmill: a job failed")[1]
    assert log in end and "does not identify objects" in end
    last = (tmp_path / log).read_text().splitlines()
    assert any("attempt 2 is not made" in line for line in last)
    assert "does not identify objects" in last[-1]

    survey.write_text("".join([head, *rows]))
    answer = snakemake(tmp_path, *command)
    assert answer.returncode == 0, answer.stderr[-4000:]
    assert (tmp_path / imported).is_file()
    assert not list((tmp_path / "results").rglob("*.cause"))


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a small demo sky, run to the end in a folder with a space and an accent in its name."""
    folder = tmp_path_factory.mktemp("a sky é")
    prepare(folder, **TINY)
    answer = snakemake(folder, "--cores", "2")
    assert answer.returncode == 0, answer.stderr[-4000:]
    assert "Where the results are" in answer.stdout + answer.stderr
    return folder / "results" / "demo"


INTERVALS = ("z_c025", "z_c160", "z_c840", "z_c975")


def whole(catalog: Path, columns: list[str] | None = None) -> pa.Table:
    return pa.concat_tables(hats.read_columns(catalog, part, columns) for part in hats.partitions(catalog))


@pytest.mark.workflow
def test_every_row_of_the_survey_has_a_photoz_in_the_same_order(sky: Path) -> None:
    survey, photoz = whole(sky / "survey", ["object_id"]), whole(sky / "current" / "photoz")
    assert len(hats.partitions(sky / "survey")) > 2
    assert survey["object_id"].equals(photoz["object_id"])
    for name in (
        "z_mode",
        "z_best",
        "z_mean",
        "z_median",
        "z_std",
        "z_p025",
        "z_p160",
        "z_p840",
        "z_p975",
        "odds",
        *INTERVALS,
    ):
        assert np.isfinite(photoz[name].to_numpy()).all(), name
    ordered = np.stack([photoz[name].to_numpy() for name in ("z_p025", "z_p160", "z_median", "z_p840", "z_p975")])
    assert (np.diff(ordered, axis=0) >= -1e-5).all()
    assert (np.diff([photoz[name].to_numpy() for name in INTERVALS], axis=0) >= -1e-5).all()


@pytest.mark.workflow
def test_no_input_row_is_lost(sky: Path) -> None:
    files = sorted((sky.parents[1] / "data/demo/survey").glob("*.parquet"))
    rows = sum(pq.read_metadata(path).num_rows for path in files)
    rejected = pq.read_metadata(sky / "rejected" / "survey.parquet").num_rows
    assert rejected > 0
    assert hats.rows(sky / "survey") + rejected == rows
    assert hats.rows(sky / "clean") == hats.rows(sky / "survey") == hats.rows(sky / "photoz") == hats.rows(sky / "pdf")
    assert json.loads((sky / "current" / "release.json").read_text())["rows"] == hats.rows(sky / "survey")


@pytest.mark.workflow
def test_docs_list_every_column_of_every_output(sky: Path, root: Path) -> None:
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", (root / "docs/columns.md").read_text(), re.M | re.S))
    documented = {head: set(re.findall(r"`([\w<>]+)`", text)) for head, text in sections.items()}
    photoz, pdf, clean, specz, matches, sample, predictions, leaderboard, _, rejected = documented.values()
    survey = yaml.safe_load((root / "surveys/demo.yaml").read_text())
    for file, known in {
        "photoz": photoz,
        "pdf": pdf,
        "survey": clean,
        "clean": clean,
        "specz": specz,
        "matches.parquet": matches,
        "split.parquet": matches,
        "sample/train.parquet": sample | clean,
        "evaluation/knn/predictions.parquet": predictions | photoz,
        "rejected/survey.parquet": rejected,
        "rejected/specz.parquet": rejected,
        "rejected/specz_conflicts.parquet": rejected,
    }.items():
        path = sky / file if (sky / file).is_file() else hats.partitions(sky / file)[0].file(sky / file)
        named = {
            re.sub(rf"^(mag|magerr|maglim)_({'|'.join(survey['bands'])})$", r"\1_<band>", c)
            for c in pq.read_schema(path).names
        }
        assert not named - known - set(survey["columns"]["extra"]), file
    with (sky / "evaluation" / "leaderboard.csv").open() as handle:
        columns = {re.sub(r"_(low|high)$", r"", name) for name in next(csv.reader(handle))}
    metrics = set(re.findall(r"`(\w+)`", (root / "docs/metrics.md").read_text())) | {
        f"coverage_{p}" for p in (68, 90, 95)
    }
    assert not columns - leaderboard - metrics


@pytest.mark.workflow
def test_others_open_the_release(sky: Path) -> None:
    import lsdb
    from hats.io.validation import is_valid_catalog

    from zmill.pdf.qp import ensemble

    for name in ("survey", "specz", "clean", "current/photoz", "current/pdf"):
        assert is_valid_catalog(sky / name, strict=True), name
    assert len(lsdb.open_catalog(sky / "current" / "photoz").compute()) == hats.rows(sky / "survey")
    partition = hats.partitions(sky / "current" / "pdf")[0]
    table = hats.read_columns(sky / "current" / "pdf", partition)
    medians = hats.read_columns(sky / "current" / "photoz", partition, ["z_median"])["z_median"].to_numpy()
    found = ensemble(table).median().ravel()
    # Between two modes a median moves far for little probability: a few rows may differ by more.
    assert np.percentile(np.abs(found - medians), 95) < 0.02


@pytest.mark.workflow
def test_the_photoz_are_right_far_more_often_than_chance(sky: Path) -> None:
    """Against the truth of the simulation, which no stage reads."""
    truth = pq.read_table(sky.parents[1] / "data/demo/truth/truth.parquet")
    bright = truth.filter(pc.and_(pc.less(truth["mag_i"], 22.5), pc.invert(truth["is_star"]))).to_pydict()
    z_true = dict(zip(bright["object_id"], bright["z_true"], strict=True))
    photoz = whole(sky / "current" / "photoz", ["object_id", "z_median", "ood", "flags"]).to_pydict()
    pairs = [
        (z, z_true[key])
        for key, z, ood, flags in zip(
            *(photoz[name] for name in ("object_id", "z_median", "ood", "flags")), strict=True
        )
        if key in z_true and not ood and not flags
    ]
    z, true = np.array(pairs).T
    delta = (z - true) / (1 + true)
    assert 1.4826 * np.median(np.abs(delta)) < 0.1
    assert np.mean(np.abs(delta) > 0.15) < 0.3


@pytest.mark.workflow
def test_the_leaderboard_names_the_better_model(sky: Path) -> None:
    with (sky / "evaluation" / "leaderboard.csv").open() as handle:
        rows = [row for row in csv.DictReader(handle) if (row["split"], row["weighted"]) == ("valid", "no")]
    best = min(rows, key=lambda row: float(row["crps"]))["model"]
    assert json.loads((sky / "evaluation" / "best.json").read_text())["model"] == best == "knn"


@pytest.mark.workflow
def test_a_second_run_has_nothing_to_do(sky: Path, capfd: Capture) -> None:
    code, text = snakemake_here(sky.parents[1], capfd, "--dry-run")
    assert code == 0 and "Nothing to be done" in text, text


PUBLISHED = {"gates", "report", "release", "all"}
AFTER_TRAINING = PUBLISHED | {"evaluate_model", "select_model", "champion"}
"""What is sure to run; shards are looked at again once it is known which model is champion."""


@pytest.mark.workflow
@pytest.mark.parametrize(
    ("config", "definition", "jobs"),
    [
        ("select={metric: sigma_nmad}", {}, PUBLISHED | {"select_model", "champion"}),
        ("predict={pdf: full}", {}, PUBLISHED | {"predict_shard", "photoz_catalog"}),
        ("release={keep: 2}", {}, {"report", "release", "all"}),
        ("gates={n_of_z: 0.1}", {}, PUBLISHED),
        ("models={trainz: {}, knn: {k: [21]}}", {}, AFTER_TRAINING | {"train_model"}),
        ("weights={train: true}", {}, AFTER_TRAINING | {"train_model"}),
        ("weights={clip: 5}", {}, AFTER_TRAINING | {"train_model", "sample"}),
        ("survey=demo", {"description": "another"}, PUBLISHED),
        (
            "survey=demo",
            {"redshift_grid": {"min": 0, "max": 2, "points": 201}},
            # Labels beyond the grid neither train nor test: another grid may make another sample.
            AFTER_TRAINING
            | {"split", "colors", "retrain_check", "clean_shard", "clean_catalog", "sample", "train_model"}
            | {"predict_shard", "photoz_catalog"},
        ),
    ],
)
def test_a_changed_setting_reruns_what_depends_on_it(
    sky: Path, config: str, definition: dict, jobs: set[str], capfd: Capture
) -> None:
    folder = sky.parents[1]
    survey = yaml.safe_load((ROOT / "surveys" / "demo.yaml").read_text(encoding="utf-8"))
    (folder / "surveys").mkdir(exist_ok=True)
    (folder / "surveys" / "demo.yaml").write_text(
        yaml.safe_dump({**survey, **definition}, sort_keys=False), encoding="utf-8"
    )
    try:
        code, text = snakemake_here(folder, capfd, "--dry-run", "--quiet", "rules", "--config", config)
    finally:
        (folder / "surveys" / "demo.yaml").unlink()
    assert code == 0, text[-4000:]
    assert set(re.findall(r"^(\w+) +\d+$", text, flags=re.MULTILINE)) - {"total"} == jobs


@pytest.mark.workflow
@pytest.mark.parametrize("target", ["predict_shard:shard=0", "train_model:model=knn", "photoz_catalog:"])
def test_the_process_of_a_job_on_a_cluster_plans_no_other_shard(sky: Path, target: str, capfd: Capture) -> None:
    rule, _, wildcard = target.partition(":")
    job = ["--target-jobs", target, "--allowed-rules", rule, "--force", "--mode", "remote", "--nolock", "--no-hooks"]
    code, text = snakemake_here(sky.parents[1], capfd, "--dry-run", "--debug-dag", *job)
    assert code == 0, text[-4000:]
    planned = set(re.findall(r"^selected job (\w+)\n +wildcards: (.*)$", text, re.MULTILINE))
    assert (rule, wildcard) in planned
    others = {job for job in planned if job[0] in ("clean_shard", "predict_shard")}
    if rule == "photoz_catalog":  # it reads what was predicted of every shard, as its record says
        numbers = [path.stem for path in (sky / "survey" / "shards").glob("*.csv")]
        assert {("predict_shard", f"shard={number}") for number in numbers} <= others
    else:
        assert others <= {("clean_shard", wildcard), ("predict_shard", wildcard)}


@pytest.mark.workflow
def test_no_pickle_is_written_and_every_job_has_a_log(sky: Path) -> None:
    assert not [path for path in sky.rglob("*") if path.suffix in {".pkl", ".pickle", ".pt", ".pth", ".joblib"}]
    logs = {path.relative_to(sky / "logs").parts[0].removesuffix(".log") for path in (sky / "logs").rglob("*.log")}
    rules = {"import_survey", "labels", "crossmatch", "split", "colors", "clean_shard", "clean_catalog", "sample"}
    assert rules | {"train_model", "evaluate_model", "select_model", "predict_shard", "photoz_catalog"} <= logs
    assert (ROOT / "rules" / "train.smk").exists()
