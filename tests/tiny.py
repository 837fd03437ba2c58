"""The workflow on a small demo sky, for the tests that run it whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.cli import main

from zmill.workflow import planning

ROOT = Path(__file__).resolve().parents[1]
TINY: dict[str, Any] = {
    "demo": {"area": 0.4},
    "partitions": {"max_rows": 8000, "max_order": 10, "shard_rows": 20000},
    "split": {"by": "sky", "block_order": 10, "train": 0.5, "valid": 0.15, "calib": 0.15, "test": 0.2},
    "models": {"trainz": {}, "knn": {"k": [11]}},
}
"""Several partitions and shards, two models that train in seconds."""


def prepare(folder: Path, **changes: Any) -> None:
    """A copy of `config.yaml` in `folder`, with some of its keys changed."""
    settings = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    settings.update(changes)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the workflow in `folder`."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=folder, timeout=1500, check=False)


def snakemake_here(
    folder: Path, capfd: pytest.CaptureFixture[str], *arguments: str, snakefile: Path = ROOT / "Snakefile"
) -> tuple[int, str]:
    """Run the workflow in `folder` by this process, for runs without jobs: a start of Python costs several times as much.

    Returns
    -------
    The exit status, and all that was printed.
    """
    here = Path.cwd()
    planning.folders.clear()
    capfd.readouterr()
    os.chdir(folder)
    try:
        with pytest.raises(SystemExit) as end:
            main(["--snakefile", str(snakefile), "--directory", str(folder), "--cores", "2", *arguments])
    finally:
        os.chdir(here)
    assert isinstance(end.value.code, int)
    return end.value.code, "".join(capfd.readouterr())
