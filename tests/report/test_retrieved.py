"""Objects and the training spectra that are nearest to them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from report_sky import HOSTILE

from zmill.columns import lists
from zmill.inputs.spectrum.grid import WavelengthGrid
from zmill.inputs.spectrum.kind import WAVELENGTH
from zmill.report.blocks import Note, Picture, Table
from zmill.report.retrieved import retrieved_section
from zmill.report.sources import Sources


def test_objects_are_shown_with_their_nearest_training_spectra(tmp_path: Path) -> None:
    grid = WavelengthGrid("log10", 3.6, 1e-3, 50)
    pixels, metadata = pa.list_(pa.float32(), 50), {WAVELENGTH: json.dumps(grid.to_json()).encode()}
    objects, count = [HOSTILE, *(f"object {number}" for number in range(7))], 4
    rank = np.tile(np.arange(count, dtype=np.int32), len(objects))
    flux = np.random.default_rng(1).normal(5, 1, (len(rank), 50)).astype(np.float32)
    table = pa.table(
        {
            "object_id": np.repeat(objects, count),
            "rank": rank,
            "neighbor_id": [f"row {number}" for number in range(len(rank))],
            "split": [None if one == 0 else "train" for one in rank],
            "redshift": np.where(rank, 0.4 + 0.01 * rank, np.nan),
            "distance": np.where(rank, 0.5 * rank, np.nan),
            "novelty": np.where(rank, 0.1 * rank, np.nan),
        }
    )
    for name, values in (("flux", flux), ("ivar", np.where(np.arange(50) == 7, 0, np.ones_like(flux)))):
        table = table.append_column(pa.field(name, pixels, metadata=metadata), lists(values.astype(np.float32)))
    pq.write_table(table, tmp_path / "retrieve.parquet")
    section = retrieved_section(Sources(tmp_path))
    assert section is not None
    notes = [block.text for block in section.blocks if isinstance(block, Note)]
    assert notes[0].startswith("8 objects were looked up") and notes[1].startswith("The first 6 are shown")
    pictures = [block for block in section.blocks if isinstance(block, Picture)]
    assert len(pictures) == 6
    assert pictures[2].caption == "object 1: redshifts 0.42 ± 0.0082, novelty 0.2"
    assert "<img" not in pictures[0].svg
    tables = [block for block in section.blocks if isinstance(block, Table)]
    assert [cell.text for cell in tables[0].rows[2]] == ["3", "row 3", "train", "0.4300", "1.50", "0.300"]


def test_without_a_table_there_is_no_section(tmp_path: Path) -> None:
    assert retrieved_section(Sources(tmp_path)) is None
