"""zmill as a module of a workflow in another folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tiny import ROOT, TINY, snakemake_here
from zmill.catalog import hats

SNAKEFILE = """
module zmill:
    snakefile: "{snakefile}"
    config: {config}
    {more}

use rule * from zmill as zmill_*

rule mine:
    default_target: True
    input: "rows.txt"

rule rows:
    input: "results/{survey}/specz/partition_info.csv"
    output: "rows.txt"
    shell: "wc -l < {{input}} > {{output}}"
"""
CONFIG = {"demo": {"area": 0.1}, "models": {"knn": {"k": [11]}}, "partitions": TINY["partitions"]}


Capture = pytest.CaptureFixture[str]


def write(folder: Path, more: str = "", **config: object) -> Path:
    """A Snakefile in `folder` that has zmill as a module."""
    told = json.dumps({**CONFIG, **config})
    survey = str(config.get("survey", "demo"))
    text = SNAKEFILE.format(snakefile=ROOT / "Snakefile", config=told, more=more, survey=survey)
    (folder / "Snakefile").write_text(text)
    return folder / "Snakefile"


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own."""
    write(folder)
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=1500, check=False)


def planned(folder: Path, capfd: Capture, **config: object) -> set[str]:
    """Rules of the jobs that a run would start."""
    code, text = snakemake_here(folder, capfd, "--dry-run", "--quiet", "rules", snakefile=write(folder, **config))
    assert code == 0, text
    return set(re.findall(r"^(\w+) +\d+$", text, re.MULTILINE)) - {"total"}


def test_shipped_and_own_surveys_are_found(tmp_path: Path, capfd: Capture) -> None:
    steps = {"zmill_demo_data", "zmill_import_survey", "zmill_labels"}
    assert planned(tmp_path, capfd) == {"mine", "rows", *steps}
    (tmp_path / "surveys").mkdir()
    definition = yaml.safe_load((ROOT / "surveys" / "demo.yaml").read_text())
    (tmp_path / "surveys" / "mine.yaml").write_text(yaml.safe_dump(definition | {"description": "my own"}))
    assert planned(tmp_path, capfd, survey="mine") == {"mine", "rows", *steps}


def test_a_prefix_is_refused(tmp_path: Path, capfd: Capture) -> None:
    snakefile = write(tmp_path, 'prefix: "elsewhere"')
    code, text = snakemake_here(tmp_path, capfd, "--dry-run", snakefile=snakefile)
    assert code == 1 and "prefix and replace_prefix are not supported: set results_dir" in text


@pytest.mark.workflow
def test_it_runs_and_the_second_run_has_nothing_to_do(tmp_path: Path, capfd: Capture) -> None:
    found = run(tmp_path)
    assert found.returncode == 0, found.stderr[-4000:]
    assert hats.rows(tmp_path / "results" / "demo" / "specz") > 0 and (tmp_path / "rows.txt").exists()
    found = run(tmp_path)
    assert "Nothing to be done" in found.stdout + found.stderr
    assert planned(tmp_path, capfd, labels={"min_quality": 4}) == {"mine", "rows", "zmill_labels"}
