"""Objects that a survey has more than once: copies (`zmill.inputs.copies`) are counted by the import.

Rows are sorted by `_healpix_29`, in which order nearly all copies follow each other. Only neighbors in this order are compared, which
takes little time and finds 95 % of the copies of a survey of 150 objects per square arcminute, more of a sparser one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.catalog import hats
from zmill.catalog.hats import Partition
from zmill.inputs.base import InputKind
from zmill.inputs.copies import NEAREST, agree
from zmill.workflow.warning import Warnings

SHARE, FEWEST = 0.003, 20
"""Least copies for a warning, as a fraction of the rows and as a number; at 300 objects per square arcminute, chance pairs are
a fraction of 0.0015."""
COPIES = "copies"
"""Key of the number of copies in the sidecar of a partition."""


def copies(table: pa.Table, inputs: Sequence[InputKind], order: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """(n,) positions, in the order of the sky, of rows that are copies of the previous row.

    Parameters
    ----------
    table : `ra`, `dec` in degrees, and the columns of the input kinds.
    inputs : the input kinds of the survey.
    order : row numbers of the table that sort by `_healpix_29`, where it is not sorted.
    """
    ra, dec = (table.column(name).to_numpy() for name in ("ra", "dec"))
    if order is not None:
        ra, dec = ra[order], dec[order]
    north = np.diff(dec)
    east = (np.diff(ra) + 180) % 360 - 180
    east *= np.cos(np.radians(dec[1:]))
    near = np.flatnonzero(east * east + north * north <= (NEAREST / 3600) ** 2)
    if not len(near):
        return near
    rows = [near, near + 1] if order is None else [order[near], order[near + 1]]
    one, other = (table.take(pa.array(some)) for some in rows)
    return near[agree(inputs, one, other)] + 1


def warn_of_copies(catalog: Path, partitions: list[Partition], inputs: Sequence[InputKind], warnings: Warnings) -> None:
    """Warn of the copies that are counted in the sidecars of a catalogue, with an example."""
    sidecars = [hats.sidecar(catalog, partition) for partition in partitions]
    counts, rows = [one.get(COPIES, 0) for one in sidecars], sum(one["rows"] for one in sidecars)
    found = sum(counts)
    if found < max(FEWEST, SHARE * rows):
        return
    most = partitions[int(np.argmax(counts))]
    table = hats.read_columns(catalog, most)
    row = int(copies(table, inputs)[0])
    first, second = table.column("object_id")[row - 1].as_py(), table.column("object_id")[row].as_py()
    ra, dec = (table.column(name)[row].as_py() for name in ("ra", "dec"))
    words = [f"the {kind.measured}" for kind in inputs]
    warnings.add(
        f'{found:,} of {rows:,} rows have the position (within {NEAREST:g}"){" and ".join(["", *words])} of another row, as objects in the '
        f"overlap of two tiles have, for example {first} and {second} at ra {ra:.6f}, dec {dec:.6f}: they count twice in n(z) and in "
        "training. All of the rows are in the output: leave the overlap out of one of the files if every object should be there once"
    )
