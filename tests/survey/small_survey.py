"""A small survey written in every format, for the tests of reading and importing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zmill.survey.readers import example
from zmill.survey_definition import Survey

BANDS = ["g", "r", "i"]


def survey(**changes: Any) -> Survey:
    """The definition that fits `table()`."""
    values: dict[str, Any] = {
        "files": ["*.parquet"],
        "columns": {
            "object_id": "id",
            "ra": "ra",
            "dec": "dec",
            "flux": "mag_{band}",
            "error": "err_{band}",
            "extra": ["size", "kind"],
        },
        "bands": BANDS,
        "sentinels": {"undetected": [99.0], "unobserved": [-99.0]},
    }
    columns = {**values["columns"], **changes.pop("columns", {})}
    return Survey.model_validate({**values, **changes, "columns": columns})


def table(rows: int, seed: int = 0, first_id: int = 1) -> pa.Table:
    """Good rows, some with bands undetected or unobserved, all over the sky."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        "id": np.arange(first_id, first_id + rows, dtype=np.int64),
        "ra": rng.uniform(0, 360, rows),
        "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, rows))),
    }
    for band in BANDS:
        state = rng.random(rows)
        mag = np.where(state < 0.1, 99.0, np.where(state < 0.2, -99.0, rng.uniform(18, 26, rows)))
        columns[f"mag_{band}"] = mag.astype(np.float32)
        columns[f"err_{band}"] = rng.uniform(0.01, 0.3, rows).astype(np.float32)
    columns["size"] = rng.integers(1, 9, rows).astype(np.int32)
    columns["kind"] = pa.array([("star", "galaxy")[n % 2] for n in range(rows)])
    return pa.table(columns)


def write(data: pa.Table, folder: Path, format: str) -> Path:
    """Write the table in a format; returns the file or folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return example(format, data, folder)
