"""A toy reader, one file as `docs/develop/add-a-reader.md` describes: a JSON object of columns, held in memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from zmill.survey.readers.held import Held

ENDINGS = (".json",)


class Reader(Held):
    """One object: name of a column -> its values."""

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        arrays = {name: np.array(values) for name, values in json.loads(path.read_text(encoding="utf-8")).items()}
        self.hold(arrays, len(next(iter(arrays.values()))), {})


def example(table: pa.Table, folder: Path) -> Path:
    """Write a small table in this format, for the tests that all readers share; returns the file."""
    path = folder / "s.json"
    path.write_text(json.dumps(table.to_pydict()), encoding="utf-8")
    return path
