"""The column `pdf` as a `qp` ensemble, the form that LSST DESC's tools read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from zmill.pdf import arrow, compact

if TYPE_CHECKING:
    import qp


def ensemble(table: pa.Table, ancillary: tuple[str, ...] = ("object_id",)) -> qp.Ensemble:
    """A `qp` ensemble of a table of `pdf/`: `quant` for compact PDFs, `interp` for full ones.

    ancillary : columns of the table that go along, row by row.

    Raises
    ------
    zmill.pdf.arrow.PdfError
        If the table holds no PDFs.
    """
    import qp

    kind, grid = arrow.read_description(table.schema)
    columns: dict[str, Any] = {name: table.column(name).to_numpy() for name in ancillary}
    if kind == "full":
        values = arrow.densities(table)[0].double().numpy()
        return qp.Ensemble(qp.interp, data={"xvals": grid.z, "yvals": values}, ancil=columns)
    levels, z = (tensor.numpy() for tensor in compact.knots(arrow.stored(table), grid))
    # Two quantiles may share a code; qp needs them apart.
    locations = z + 1e-7 * np.arange(len(levels))
    return qp.Ensemble(qp.quant, data={"quants": levels, "locs": locations, "ensure_extent": False}, ancil=columns)
