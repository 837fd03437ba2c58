"""The workflow as a person runs it: its targets, its messages, and a small sky from end to end."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def snakemake(folder: Path, *arguments: str, **config: object) -> subprocess.CompletedProcess[str]:
    """Run the workflow in a folder of its own, which gets a copy of `config.yaml` with some keys changed."""
    settings = yaml.safe_load((ROOT / "config.yaml").read_text())
    settings.update(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    return subprocess.run([*command, "--cores", "2", *arguments], capture_output=True, text=True, cwd=folder)


def test_documented_targets_are_listed(tmp_path: Path) -> None:
    answer = snakemake(tmp_path, "--list-target-rules")
    assert answer.returncode == 0, answer.stderr
    for target in ("all", "demo_data", "labels", "crossmatch", "train", "evaluate", "predict", "report", "release"):
        line = next(line for line in answer.stdout.splitlines() if line.split()[:1] == [target])
        assert len(line.split()) > 3, f"{target} has no description"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"survy": "demo"}, "config.yaml: survy: unknown key; did you mean 'survey'?"),
        ({"survey": "dmeo"}, "there is no surveys/dmeo.yaml; did you mean 'demo'?"),
        ({"models": {"knm": {}}}, "did you mean 'knn'?"),
        ({"models": {"knn": {"scalling": "minmax"}}}, "did you mean 'scaling'?"),
        ({"select": {"metric": "crsp"}}, "did you mean 'crps'?"),
        ({"crossmatch": {"radius_arcsec": 30}}, "beyond crossmatch.margin_arcsec"),
        ({"survey": "zcosmos", "data_dir": "nowhere"}, "nowhere/zcosmos/zcosmos_bright20k.csv"),
    ],
)
def test_a_wrong_setting_stops_the_run_before_any_job(tmp_path: Path, config: dict, message: str) -> None:
    answer = snakemake(tmp_path, "--dry-run", **config)
    assert answer.returncode != 0
    assert message in answer.stderr + answer.stdout
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("survey", ["demo"])
def test_a_dry_run_plans_every_stage(tmp_path: Path, survey: str) -> None:
    answer = snakemake(tmp_path, "--dry-run", survey=survey)
    assert answer.returncode == 0, answer.stderr
    for rule in ("demo_data", "import_survey", "labels", "crossmatch", "split", "colors", "train_model", "report"):
        assert rule in answer.stdout
