"""A survey without photometry from its files to a release, by an input kind, a model, a reader and a label source of one new file each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tiny import ROOT, TINY, prepare

TOYS = Path(__file__).with_name("toys")
PIXELS, ROWS, LABELS = 24, 2000, 800


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A copy of zmill with a toy input kind, models, a reader and a label source: one new file each, and nothing else changed."""
    root = tmp_path / "zmill"
    root.mkdir()
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("Snakefile", "config.yaml", "rules", "workflow_scripts", "profiles", "envs", "docs"):
        source = ROOT / name
        shutil.copytree(source, root / name, ignore=skip) if source.is_dir() else shutil.copy(source, root / name)
    shutil.copytree(TOYS, root / "workflow_scripts" / "zmill", ignore=skip, dirs_exist_ok=True)
    return root


def snakemake(library: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the workflow of the copy in `folder`."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(library / "Snakefile"), "--directory", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(library / "workflow_scripts")}
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, cwd=folder, timeout=2400, check=False, env=environment
    )


def write_survey(folder: Path) -> np.ndarray:
    """Spectra with a line that moves with redshift, redshifts of some of them, and the definition; returns all redshifts."""
    rng = np.random.default_rng(1)
    z = rng.uniform(0.05, 1.2, ROWS)
    line = np.exp(-0.5 * ((np.arange(PIXELS) - 3 - 14 * z[:, None]) / 1.5) ** 2)
    flux = (1 + 5 * line + rng.normal(0, 0.1, line.shape)).astype(np.float32)
    ra, dec = rng.uniform(10, 12, ROWS), rng.uniform(-1, 1, ROWS)
    columns = {"id": np.arange(ROWS), "ra": ra, "dec": dec, "flux": flux}
    (folder / "survey.json").write_text(json.dumps({name: values.tolist() for name, values in columns.items()}))
    np.savetxt(folder / "redshifts.txt", np.stack([ra, dec, z], axis=1)[:LABELS], fmt="%.9f")
    source = {"name": "redshifts", "source": "toylist", "files": ["redshifts.txt"]}
    survey = {
        "files": ["survey.json"],
        "format": "toyjson",
        "columns": {"object_id": "id", "ra": "ra", "dec": "dec"},
        "toyspectrum": {"flux": "flux", "pixels": PIXELS},
        "labels": [source],
        "redshift_grid": {"max": 1.5, "points": 151},
    }
    (folder / "surveys").mkdir()
    (folder / "surveys" / "spectra.yaml").write_text(yaml.safe_dump(survey))
    return z


@pytest.mark.workflow
def test_every_row_is_released(library: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    z = write_survey(folder)
    settings = {**TINY, "survey": "spectra", "data_dir": ".", "models": {"toyneighbors": {}}}
    prepare(folder, **settings)
    answer = snakemake(library, folder, "--cores", "2")
    assert answer.returncode == 0, answer.stderr[-6000:] + answer.stdout[-2000:]
    results = folder / "results" / "spectra"
    released = results / "current" / "photoz" / "dataset"
    rows = pq.read_table(released, columns=["object_id", "z_median"])
    assert rows.num_rows == ROWS
    error = np.abs(rows["z_median"].to_numpy() - z[rows["object_id"].to_numpy()])
    assert np.median(error) < 0.03
    page = (results / "report.html").read_text().split("config.yaml, with defaults")[0]
    for word in ("magnitude", "bands", "photometric object"):
        assert word not in page, page[max(0, page.index(word) - 300) : page.index(word) + 100]
