"""Stamps of test rows: which are shown, in which colors, with which PDF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from report_sky import HOSTILE

from zmill.catalog import hats
from zmill.catalog.files import write_json
from zmill.catalog.hats import Partition
from zmill.columns import lists
from zmill.pdf import arrow, compact
from zmill.pdf.grid import Grid
from zmill.report.blocks import Note, Picture
from zmill.report.sources import Sources
from zmill.report.stamps import color_bands, colored, stamps_section

BANDS, SIZE, ROWS = ("u", "g", "r", "i", "z"), 8, 20


def results(folder: Path) -> Sources:
    """Results with 20 test rows, of which the last has no stamp, one is far off and one out of distribution."""
    rng = np.random.default_rng(1)
    flux = rng.normal(0, 1, (ROWS, len(BANDS), SIZE, SIZE)).astype(np.float32)
    flux[:, :, 3:5, 3:5] += 50
    good = np.where(np.arange(ROWS) == ROWS - 1, 0, 1).astype(np.float32)
    names = [HOSTILE, *(f"object {number}" for number in range(1, ROWS))]
    storage = lists(flux.reshape(ROWS, -1))
    tensor = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), flux.shape[1:]), storage)
    healpix = np.arange(ROWS, dtype=np.int64)
    sample = pa.table({"object_id": names, "_healpix_29": healpix, "image": tensor, "image_good": good})
    (folder / "sample").mkdir(parents=True)
    pq.write_table(sample, folder / "sample" / "test.parquet", row_group_size=7)
    z_mode = np.full(ROWS, 0.2) + 0.001 * np.arange(ROWS)
    z_mode[5] = 0.9
    predictions = {
        "object_id": names,
        "split": ["test"] * ROWS,
        "redshift": np.full(ROWS, 0.2),
        "z_mode": z_mode,
        "ood": np.where(np.arange(ROWS) == 7, 1, 0).astype(np.float32),
        "log_score": -np.arange(ROWS, dtype=np.float64),
    }
    (folder / "evaluation" / "one").mkdir(parents=True)
    pq.write_table(pa.table(predictions), folder / "evaluation" / "one" / "predictions.parquet")
    write_json(folder / "evaluation" / "best.json", {"model": "one"})
    return Sources(folder)


def test_best_worst_and_strange_rows_are_shown(tmp_path: Path) -> None:
    section = stamps_section(results(tmp_path), BANDS)
    assert section is not None
    note, *pictures = section.blocks
    assert isinstance(note, Note) and "19 of 20" in note.text and "i, r, g" in note.text
    captions = [block.caption for block in pictures if isinstance(block, Picture)]
    assert captions[0].startswith(f"Best predictions: {HOSTILE} (z = 0.2), object 1 (z = 0.2), object 2")
    assert captions[1].startswith("Largest errors: object 5 (z = 0.2), object 18")
    assert captions[2] == "Out of distribution: object 7 (z = 0.2)"
    assert all(HOSTILE not in block.svg for block in pictures if isinstance(block, Picture))


def test_there_is_no_section_without_images(tmp_path: Path) -> None:
    assert stamps_section(Sources(tmp_path), BANDS) is None
    assert stamps_section(results(tmp_path / "with"), []) is None


def test_pdfs_of_the_rows_are_found(tmp_path: Path) -> None:
    sources = results(tmp_path)
    assert sources.densities(pa.array(["object 3"]), np.array([3])) == {}
    grid = Grid(0.0, 1.0, 101)
    density = torch.exp(-0.5 * ((grid.tensor()[None] - torch.linspace(0.2, 0.8, ROWS)[:, None]) / 0.05) ** 2)
    codes = compact.encode(grid.normalize(density), grid)
    names = [f"object {number}" for number in range(ROWS)]
    schema = pa.schema([("object_id", pa.string()), arrow.field("compact", grid)], arrow.metadata("compact", grid))
    table = pa.table([names, arrow.column("compact", codes)], schema=schema)
    part = Partition(0, 0)
    with hats.write_partition(tmp_path / "pdf", part, table.schema) as writer:
        writer.write(table)
    hats.finish(tmp_path / "pdf", "pdf", [part])
    found = sources.densities(pa.array(["object 3", "object 19"]), np.array([3, 19]))
    assert {name: round(float(z[values.argmax()]), 2) for name, (z, values) in found.items()} == {
        "object 3": 0.29,
        "object 19": 0.8,
    }


def test_colors() -> None:
    assert color_bands(BANDS) == ["i", "r", "g"]
    assert color_bands(("g", "r", "i")) == ["i", "r", "g"]
    assert color_bands(("r",)) == ["r", "r", "r"]
    planes = np.random.default_rng(2).normal(0, [[[1.0]], [[10.0]], [[0.1]]], (3, 9, 9))
    planes[0, 4, 4] = 100
    found = colored(planes)
    assert found.shape == (9, 9, 3) and found.min() >= 0 and found.max() <= 1
    assert found[4, 4].argmax() == 0 and found[4, 4, 0] > 0.9
    assert np.isfinite(colored(np.zeros((3, 5, 5)))).all()
