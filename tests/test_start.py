"""What a start of Snakemake costs: what it imports, and what a job's own process on a cluster plans."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tiny import ROOT, prepare

HEAVY = {
    *(
        "torch",
        "torch_geometric",
        "sklearn",
        "lightgbm",
        "optuna",
        "scipy",
        "numba",
        "dask",
        "distributed",
        "matplotlib",
    ),
    *("astropy", "cdshealpix", "mocpy", "astroquery", "pyvo", "hats", "speclite", "h5py", "safetensors"),
}
"""Packages that take long to import. Snakemake itself imports some of the others (numpy, pandas, pyarrow)."""


def imported(folder: Path, *arguments: str) -> set[str]:
    """Packages that Snakemake imports while it reads the Snakefile."""
    command = [sys.executable, "-X", "importtime", "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--list-target-rules", *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    times = [line.split("|") for line in answer.stderr.splitlines() if line.startswith("import time:")]
    return {columns[2].strip().partition(".")[0] for columns in times if len(columns) == 3}


def test_the_process_of_a_job_imports_nothing_heavy(tmp_path: Path) -> None:
    prepare(tmp_path)
    found = imported(tmp_path, "--mode", "remote")
    assert {"snakemake", "zmill", "pydantic"} <= found
    assert not found & HEAVY


@pytest.mark.parametrize("models", [None, {"trainz": {}}])
def test_the_main_process_imports_what_checks_the_models_of_the_configuration(
    tmp_path: Path, models: dict | None
) -> None:
    prepare(tmp_path, **({"models": models} if models else {}))
    # The default configuration has nearest neighbors, which scipy finds.
    assert imported(tmp_path) & HEAVY == ({"torch"} if models else {"torch", "scipy"})


def test_jobs_that_predict_import_no_packages_of_the_training() -> None:
    code = "import sys, zmill.predict.shard, zmill.predict.finish; print(*{name.partition('.')[0] for name in sys.modules})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"sklearn", "scipy", "lightgbm", "optuna", "matplotlib"} & set(answer.stdout.split())


def test_jobs_that_judge_import_no_torch() -> None:
    code = "import sys, zmill.release.gates, zmill.training.selection, zmill.training.missing_data; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
