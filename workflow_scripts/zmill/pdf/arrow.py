"""Densities as an Arrow column `pdf`; the schema metadata describe its format."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from zmill.pdf import compact
from zmill.pdf.grid import Grid

Kind = Literal["compact", "full"]
"""`compact`: 32 quantiles, little-endian uint16 one after the other; `full`: the density on the grid, float16."""

COMPACT_BYTES = 2 * len(compact.LEVELS)
"""Parquet would keep a list of uint16 as 32-bit integers with a repetition level each: a fifth larger and ten times slower."""

KEY = b"zmill.pdf"
"""Key of the schema's metadata: JSON with `kind`, `grid` and, for compact PDFs, `levels`."""


class PdfError(Exception):
    """A table has no PDFs written by zmill."""


def description(kind: Kind, grid: Grid) -> dict[str, Any]:
    """JSON-ready description of a `pdf` column."""
    found: dict[str, Any] = {"kind": kind, "grid": asdict(grid)}
    return found | ({"levels": list(compact.LEVELS)} if kind == "compact" else {})


def metadata(kind: Kind, grid: Grid) -> dict[bytes, bytes]:
    """Schema metadata of a table with a `pdf` column."""
    return {KEY: json.dumps(description(kind, grid)).encode()}


def field(kind: Kind, grid: Grid) -> pa.Field:
    """The column `pdf`."""
    if kind == "compact":
        return pa.field("pdf", pa.binary(COMPACT_BYTES))
    return pa.field("pdf", pa.list_(pa.float16(), grid.size))


def column(kind: Kind, values: Tensor) -> pa.FixedSizeBinaryArray | pa.FixedSizeListArray:
    """The column's values: (n, 32) uint16 codes for compact, (n, grid.size) densities for full."""
    if kind == "compact":
        codes = np.ascontiguousarray(values.cpu().numpy(), dtype="<u2")
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(COMPACT_BYTES), len(codes), [None, pa.py_buffer(codes)])
    array = np.ascontiguousarray(values.cpu().numpy(), dtype=np.float16)
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])


def read_description(schema: pa.Schema) -> tuple[Kind, Grid]:
    """Kind and grid of a table's `pdf` column.

    Raises
    ------
    PdfError
        If the schema has no such column or no metadata about it.
    """
    known = schema.metadata or {}
    if "pdf" not in schema.names or KEY not in known:
        raise PdfError(
            f"found the columns {', '.join(schema.names)} and the metadata keys {sorted(known)}; expected a column pdf "
            f"and the key {KEY.decode()}: read a Parquet file of pdf/ as it is, without dropping its schema metadata"
        )
    found = json.loads(known[KEY])
    if found["kind"] == "compact" and tuple(found["levels"]) != compact.LEVELS:
        raise PdfError("the PDFs were stored at other quantile levels than this version of zmill reads")
    return found["kind"], Grid(**found["grid"])


def stored(table: pa.Table | pa.RecordBatch) -> Tensor:
    """The column's values as they are stored: uint16 codes or float16 densities, (n, k)."""
    values = table.column("pdf")
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_fixed_size_binary(values.type):
        start = values.offset * COMPACT_BYTES
        codes = np.frombuffer(values.buffers()[1], "<u2", len(values) * len(compact.LEVELS), start)
        return torch.from_numpy(codes.reshape(len(values), -1).astype(np.uint16))
    width = values.type.list_size
    return torch.from_numpy(values.flatten().to_numpy(zero_copy_only=False).reshape(-1, width).copy())


def densities(table: pa.Table | pa.RecordBatch) -> tuple[Tensor, Grid]:
    """(n, grid.size) float32 normalized densities of a table's `pdf` column, and their grid.

    Raises
    ------
    PdfError
        If the table has none.
    """
    kind, grid = read_description(table.schema)
    values = stored(table)
    return (compact.decode(values, grid) if kind == "compact" else grid.normalize(values.float())), grid
