"""The column `pdf` as a `qp` ensemble, the form that LSST DESC's tools read.

It holds the densities on the grid (`qp.interp`), whatever the kind that is stored: what `zmill.pdf.arrow.densities` gives, with
integral 1. `qp.quant` would be smaller, but no PDF constructor of qp's keeps a density of quantiles with two peaks, or with a tail
that ends at the grid, normalized, and its moments raise TypeError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.pdf import arrow

if TYPE_CHECKING:
    import qp


def ensemble(table: pa.Table, ancillary: tuple[str, ...] = ("object_id",)) -> qp.Ensemble:
    """A `qp` ensemble of a table of `pdf/`, row by row.

    ancillary : columns of the table that go along. Text is given as UTF-8 in bytes of fixed width, which HDF5 and FITS hold.

    Raises
    ------
    zmill.pdf.arrow.PdfError
        If the table holds no PDFs.
    """
    import qp

    densities, grid = arrow.densities(table)
    columns = {name: _writable(table.column(name)) for name in ancillary}
    return qp.Ensemble(qp.interp, data={"xvals": grid.z, "yvals": densities.double().numpy()}, ancil=columns)


def _writable(column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array([text.encode() for text in column.to_pylist()], dtype=np.bytes_)
    return np.asarray(column.to_numpy())
