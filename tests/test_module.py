"""zmill as a module of a workflow in another folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tiny import ROOT, TINY
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


def run(folder: Path, *arguments: str, more: str = "", **config: object) -> subprocess.CompletedProcess[str]:
    """Run a workflow in `folder` that has zmill as a module."""
    told = json.dumps({**CONFIG, **config})
    survey = str(config.get("survey", "demo"))
    text = SNAKEFILE.format(snakefile=ROOT / "Snakefile", config=told, more=more, survey=survey)
    (folder / "Snakefile").write_text(text)
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=1500, check=False)


def planned(text: str) -> set[str]:
    return set(re.findall(r"^(\w+) +\d+$", text, re.MULTILINE)) - {"total"}


def test_shipped_and_own_surveys_are_found(tmp_path: Path) -> None:
    found = run(tmp_path, "--dry-run", "--quiet", "rules")
    assert found.returncode == 0, found.stderr
    steps = {"zmill_demo_data", "zmill_import_survey", "zmill_labels"}
    assert planned(found.stdout + found.stderr) == {"mine", "rows", *steps}
    (tmp_path / "surveys").mkdir()
    definition = yaml.safe_load((ROOT / "surveys" / "demo.yaml").read_text())
    (tmp_path / "surveys" / "mine.yaml").write_text(yaml.safe_dump(definition | {"description": "my own"}))
    found = run(tmp_path, "--dry-run", "--quiet", "rules", survey="mine")
    assert found.returncode == 0, found.stderr
    assert planned(found.stdout + found.stderr) == {"mine", "rows", *steps}


def test_a_prefix_is_refused(tmp_path: Path) -> None:
    found = run(tmp_path, "--dry-run", more='prefix: "elsewhere"')
    said = found.stdout + found.stderr
    assert found.returncode == 1 and "prefix and replace_prefix are not supported: set results_dir" in said


@pytest.mark.workflow
def test_it_runs_and_the_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    found = run(tmp_path)
    assert found.returncode == 0, found.stderr[-4000:]
    assert hats.rows(tmp_path / "results" / "demo" / "specz") > 0 and (tmp_path / "rows.txt").exists()
    found = run(tmp_path)
    assert "Nothing to be done" in found.stdout + found.stderr
    found = run(tmp_path, "--dry-run", "--quiet", "rules", labels={"min_quality": 4})
    assert planned(found.stdout + found.stderr) == {"mine", "rows", "zmill_labels"}
