"""`snakemake tune` as a person runs it, on a small sky: side by side, killed, gone on with, and its winner used."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tiny import ROOT, TINY, prepare, snakemake

MODELS = {"knn": {}, "quick": {"type": "fcnn", "epochs": 12, "batch": 256, "hidden": [32]}}
KNN = {"space": {"scaling": ["minmax", "robust"], "weights": ["uniform", "distance"]}, "trials": 5}
QUICK = {
    "space": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "colors": [False, True]},
    "trials": 4,
    "metric": "mse",
}
SIDE_BY_SIDE = ("--cores", "4")

pytestmark = pytest.mark.workflow


def configure(folder: Path, **tune: dict) -> None:
    prepare(folder, **{**TINY, "models": MODELS, "tune": tune})


def numbers(results: Path, model: str) -> list[int]:
    """Places of the trials in a journal, in the order of their beginning."""
    lines = (results / "tune" / model / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    return [line["user_attrs"]["number"] for line in map(json.loads, lines) if line["op_code"] == 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sky whose sample is there, with test rows that nothing could read."""
    folder = tmp_path_factory.mktemp("sky")
    configure(folder)
    answer = snakemake(folder, "--cores", "2", "sample")
    assert answer.returncode == 0, answer.stderr[-4000:]
    test = folder / "results/demo/sample/test.parquet"
    test.rename(test.with_suffix(".away"))
    test.write_text("no table\n")
    configure(folder, knn=KNN, quick=QUICK)
    return folder


@pytest.fixture(scope="module")
def searched(folder: Path) -> Path:
    """The search, killed once with everything that belongs to it, and gone on with."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    progress = folder / "results/demo/progress/tune"
    with subprocess.Popen(
        [*command, "tune", *SIDE_BY_SIDE], cwd=folder, start_new_session=True, stderr=subprocess.PIPE, text=True
    ) as run:
        while run.poll() is None and not list(progress.glob("*/*.json")):
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGKILL)
        assert "Execute 2 jobs..." in run.stderr.read()
    assert run.returncode == -signal.SIGKILL
    assert snakemake(folder, "tune", "--unlock").returncode == 0
    answer = snakemake(folder, "tune", *SIDE_BY_SIDE)
    assert answer.returncode == 0, answer.stderr[-4000:]
    assert "best settings of knn" in answer.stdout + answer.stderr
    return folder / "results/demo"


def test_the_budget_is_met_to_the_trial(searched: Path) -> None:
    assert sorted(numbers(searched, "quick")) == [0, 1, 2, 3]
    assert sorted(numbers(searched, "knn")) == [0, 1, 2, 3]  # the fifth is left out: there are four combinations
    for model, trials in (("quick", 4), ("knn", 4)):
        with (searched / "tune" / model / "trials.csv").open() as handle:
            rows = list(csv.DictReader(handle))
        assert sorted(int(row["trial"]) for row in rows) == list(range(trials))
        best = json.loads((searched / "tune" / model / "search.json").read_text())["best"]
        metric = {"quick": "mse", "knn": "crps"}[model]
        assert min(rows, key=lambda row: float(row[metric] or "inf"))["trial"] == str(best)


def test_nothing_is_left_to_do_and_a_larger_budget_only_adds(searched: Path, folder: Path) -> None:
    answer = snakemake(folder, "tune", "--cores", "2", "--dry-run")
    assert "Nothing to be done" in answer.stdout + answer.stderr
    configure(folder, knn=KNN, quick={**QUICK, "trials": 6})
    answer = snakemake(folder, "tune", "--cores", "2", "--dry-run", "--quiet", "rules")
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", answer.stdout + answer.stderr, flags=re.MULTILINE))
    assert jobs == {"tune_trial": "2", "tune_model": "1", "tune": "1", "total": "4"}
    configure(folder, knn=KNN, quick=QUICK)


def test_all_searches_nothing(searched: Path, folder: Path) -> None:
    configure(folder, knn=KNN, quick={**QUICK, "space": {"lr": [1e-3, 1e-2]}})
    answer = snakemake(folder, "all", "--cores", "2", "--dry-run", "--quiet", "rules")
    assert "train_model" in answer.stdout + answer.stderr
    assert not re.search(r"^tune", answer.stdout + answer.stderr, flags=re.MULTILINE)
    configure(folder, knn=KNN, quick=QUICK)


def test_the_winner_reaches_the_same_score_without_the_search(searched: Path, folder: Path) -> None:
    configure(folder)
    test = searched / "sample/test.parquet"
    test.with_suffix(".away").replace(test)
    for model, metric in (("quick", "mse"), ("knn", "crps")):
        found = json.loads((searched / "tune" / model / "search.json").read_text())
        best = next(trial for trial in found["trials"] if trial["number"] == found["best"])
        entry = str(searched / "tune" / model / "best.yaml")
        metrics = f"results/demo/evaluation/{model}/metrics.json"
        answer = snakemake(folder, "--cores", "2", metrics, "--configfile", "config.yaml", entry)
        assert answer.returncode == 0, answer.stderr[-4000:]
        described = json.loads((searched / "models" / model / "model.json").read_text())
        assert best["values"].items() <= described["settings"].items()
        measured = json.loads((folder / metrics).read_text())["splits"]["valid"]["board"]
        assert measured[metric] == best["score"]
