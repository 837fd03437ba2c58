"""VOTable of any serialisation, through astropy, which holds the whole table in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.io import votable

from zmill.survey.readers.base import ReadError, Span, Table, windows

ENDINGS = (".vot", ".votable", ".xml", ".vot.gz")


class Reader(Table):
    """One table of a VOTable: the one of this ID or name, or the first; a field goes by its name, or by its ID."""

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        document = votable.parse(str(path), verify="ignore")
        tables = list(document.iter_tables())
        chosen = [t for t in tables if group is None or group in (t.ID, t.name)]
        if not chosen:
            names = ", ".join(str(t.ID or t.name) for t in tables)
            raise ReadError(f"{path}: there is no table {group!r}; there is: {names or 'none'}")
        self._array = chosen[0].array
        self._fields = {field.name or field.ID: field.ID for field in chosen[0].fields if _is_plain(field)}
        self.columns = list(self._fields)
        self.units = {f.name or f.ID: str(f.unit) for f in chosen[0].fields if f.unit}
        self.rows: int = len(self._array)

    def spans(self, rows: int) -> list[Span]:
        """One piece: a second one would parse the file again."""
        return [None] if self.rows else []

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        first, last = span or (0, self.rows)
        for start, stop in windows(first, last, batch_rows):
            arrays = [_arrow(self._array[self._fields[name]][start:stop]) for name in columns]
            yield pa.RecordBatch.from_arrays(arrays, names=columns)


def _is_plain(field: votable.tree.Field) -> bool:
    return field.arraysize in (None, "1") or field.datatype in ("char", "unicodeChar")


def _arrow(values: np.ma.MaskedArray) -> pa.Array:
    mask = np.ma.getmaskarray(values)
    data = np.ma.getdata(values)
    if data.dtype.kind in "OSU":
        texts = [v.decode("utf-8") if isinstance(v, bytes) else v for v in data.tolist()]
        return pa.array([None if m else v for v, m in zip(texts, mask, strict=True)], pa.string())
    return pa.array(data.astype(data.dtype.newbyteorder("="), copy=False), mask=mask)
