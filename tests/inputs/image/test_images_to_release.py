"""A survey of images from its files to a release: stamps in a cube of their own, a model over them, rows without a stamp."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from inputs.test_without_photometry import library as library
from inputs.test_without_photometry import snakemake
from tiny import TINY, prepare
from zmill.inputs.image.batch import NO_IMAGE

ROWS, LABELS, SIZE, LOST = 2000, 800, 12, 40


def write_survey(folder: Path) -> np.ndarray:
    """Stamps whose color is their redshift, redshifts of some of them, and the definition; returns all redshifts."""
    rng = np.random.default_rng(1)
    z = rng.uniform(0.05, 1.2, ROWS)
    offset = np.arange(SIZE) - (SIZE - 1) / 2
    shape = np.exp(-0.5 * (offset[:, None] ** 2 + offset**2) / 2**2)
    flux = rng.uniform(40, 60, (ROWS, 1)) * np.stack([10 ** (-0.4 * z), np.ones(ROWS)], axis=1)
    cube = flux[:, None, None] * shape[:, :, None] + rng.normal(0, 0.3, (ROWS, SIZE, SIZE, 2))
    ids, ra, dec = 7 * np.arange(ROWS) + 10**12, rng.uniform(10, 12, ROWS), rng.uniform(-1, 1, ROWS)
    order = rng.permutation(ROWS)[LOST:]
    labels = np.zeros(len(order), [("specObjID", np.int64), ("EBV", np.float32)])
    labels["specObjID"] = ids[order]
    np.savez(folder / "cube.npz", cube=cube[order].astype(np.float32), labels=labels)
    pq.write_table(pa.table({"id": ids, "ra": ra, "dec": dec}), folder / "survey.parquet")
    pq.write_table(pa.table({"ra": ra, "dec": dec, "z": z}).slice(0, LABELS), folder / "redshifts.parquet")
    survey = {
        "files": ["survey.parquet"],
        "columns": {"object_id": "id", "ra": "ra", "dec": "dec"},
        "image": {
            "bands": ["g", "r"],
            "size": SIZE,
            "pixel_scale": 0.4,
            "flux": "cube",
            "order": "bands_last",
            "source": {"type": "table", "files": ["cube.npz"], "join": "object_id", "object_id": "specObjID"},
        },
        "labels": [
            {
                "name": "redshifts",
                "source": "file",
                "files": ["redshifts.parquet"],
                "columns": {"ra": "ra", "dec": "dec", "redshift": "z"},
                "quality": 4,
            }
        ],
        "redshift_grid": {"max": 1.5, "points": 151},
    }
    (folder / "surveys").mkdir()
    (folder / "surveys" / "stamps.yaml").write_text(yaml.safe_dump(survey))
    return np.where(np.isin(np.arange(ROWS), order), z, np.nan)


@pytest.mark.workflow
def test_every_row_is_released(library: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    z = write_survey(folder)
    prepare(folder, **{**TINY, "survey": "stamps", "data_dir": ".", "models": {"toystamps": {}}})
    answer = snakemake(library, folder, "--cores", "2")
    assert answer.returncode == 0, answer.stderr[-6000:] + answer.stdout[-2000:]
    results = folder / "results" / "stamps"
    rows = pq.read_table(results / "current" / "photoz" / "dataset", columns=["object_id", "z_median", "flags"])
    assert rows.num_rows == ROWS
    true = z[(rows["object_id"].to_numpy() - 10**12) // 7]
    assert np.nanmedian(np.abs(rows["z_median"].to_numpy() - true)) < 0.03
    assert np.array_equal((rows["flags"].to_numpy() & NO_IMAGE) > 0, np.isnan(true)) and np.isnan(true).sum() == LOST
    assert np.isfinite(rows["z_median"].to_numpy()).all(), "rows without a stamp have a redshift, too"
    page = (results / "report.html").read_text()
    assert "image_missing" in page and "S/N of the image" in page
    again = snakemake(library, folder, "--cores", "2", "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr
