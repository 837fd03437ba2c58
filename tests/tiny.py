"""The workflow on a small demo sky, for the tests that run it whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

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
