"""Which stamp belongs to a row: by identifier, or by position."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zmill.catalog.files import ReadError

Numbers = NDArray[np.int64]


def same_type(columns: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    """The columns of several files as one: numbers as they are, whole numbers and texts as texts."""
    kinds = {column.type for column in columns}
    if len(kinds) > 1:
        floating = all(pa.types.is_floating(kind) or pa.types.is_integer(kind) for kind in kinds)
        wanted = (
            pa.float64()
            if floating and any(map(pa.types.is_floating, kinds))
            else pa.int64()
            if floating
            else pa.string()
        )
        columns = [column.cast(wanted) for column in columns]
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)


class Identifiers:
    """Finds stamps by identifier.

    known : identifier of each stamp. what : the column, for messages.
    """

    def __init__(self, known: pa.Array, what: str) -> None:
        self.known, self.what = known, what
        self._prepared: dict[pa.DataType, tuple[pa.Array, Numbers, pa.Array]] = {}

    def find(self, ids: pa.Array) -> tuple[Numbers, NDArray[np.bool_]]:
        """Number of the first stamp with each identifier, or -1; and whether there are several.

        ids : (n,) int64 or string.

        Raises
        ------
        ReadError
            Where the survey's identifiers are numbers and those of the stamps are not, or are rounded.
        """
        if ids.type not in self._prepared:
            self._prepared[ids.type] = self._prepare(ids.type)
        values, numbers, repeated = self._prepared[ids.type]
        several = np.asarray(pc.is_in(ids, repeated, skip_nulls=True).to_numpy(zero_copy_only=False))
        if not len(values):
            return np.full(len(ids), -1, np.int64), several
        if pa.types.is_integer(ids.type):
            ordered, wanted = values.to_numpy(), ids.fill_null(0).to_numpy()
            place = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
            same = (ordered[place] == wanted) & ids.is_valid().to_numpy(zero_copy_only=False)
        else:
            found = pc.index_in(ids, values, skip_nulls=True)
            place, same = found.fill_null(0).to_numpy(), found.is_valid().to_numpy(zero_copy_only=False)
        return np.where(same, numbers[place], -1), several

    def _prepare(self, kind: pa.DataType) -> tuple[pa.Array, Numbers, pa.Array]:
        """Known identifiers in the type of those of the survey, numbers sorted; the numbers of their stamps; and those of several stamps."""
        numbers = np.flatnonzero(self.known.is_valid().to_numpy(zero_copy_only=False))
        values = _as(self.known.take(pa.array(numbers)), kind, self.what)
        counts = pc.value_counts(values)
        repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        if pa.types.is_integer(kind):
            order = np.argsort(values.to_numpy(), kind="stable")
            values, numbers = values.take(pa.array(order)), numbers[order]
        return values, numbers, repeated


def _as(known: pa.Array, kind: pa.DataType, what: str) -> pa.Array:
    """Identifiers of stamps in the type of those of the survey."""
    if known.type == kind:
        return known
    if pa.types.is_floating(known.type):
        raise ReadError(f"{what} holds numbers with a fraction, which identify no stamps: name another column")
    try:
        return known.cast(kind)
    except pa.ArrowInvalid as error:
        raise ReadError(
            f"{what}: identifiers of stamps and of the survey (columns.object_id) are of different kinds: {error}"
        ) from None


def by_position(
    ra: NDArray[np.float64], dec: NDArray[np.float64], radius: float
) -> Callable[[NDArray[np.float64], NDArray[np.float64]], Numbers]:
    """A function of positions (n,) in degrees: number of the nearest stamp within `radius` in arcsec, or -1.

    ra, dec : position of each stamp in degrees; stamps without one are not found.
    """
    from scipy.spatial import cKDTree  # takes long to import

    there = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    tree = cKDTree(_vectors(ra[there], dec[there]))
    chord = 2 * np.sin(np.radians(radius / 3600) / 2)

    def find(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> Numbers:
        found = np.full(len(ra), -1, np.int64)
        known = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
        if len(there) and len(known):
            distance, number = tree.query(_vectors(ra[known], dec[known]), distance_upper_bound=chord * (1 + 1e-9))
            near = np.isfinite(distance)
            found[known[near]] = there[number[near]]
        return found

    return find


def _vectors(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 3) unit vectors."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)
