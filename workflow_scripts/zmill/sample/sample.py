"""The sample: the split of the labelled rows into train, valid, calib and test, and their tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from zmill.catalog.files import atomic_write, write_json
from zmill.catalog.hats import Partition
from zmill.catalog.sizes import GROUP_BYTES, rows_of
from zmill.catalog.sky import HEALPIX_COLUMN, HEALPIX_ORDER, at_order
from zmill.config import Split
from zmill.workflow.warning import Warnings

SPLITS = ("train", "valid", "calib", "test")
MIN_ROWS = {"train": 20, "valid": 5, "calib": 5, "test": 5}
"""Fewest labelled rows of each split; a model may require more."""
LABEL_COLUMNS = ("redshift", "redshift_err", "quality", "label_source", "separation_arcsec")
WEIGHT = pa.field("weight", pa.float64())
GROUP_ROWS = 1 << 20
"""Most rows in a row group of the tables."""


class SampleError(Exception):
    """The labelled rows do not make a sample."""


# ------------------------------------------------------------------------------------------------- assignment


def key_column(split: Split) -> str:
    """The column that determines the split of a row in `assign`."""
    return HEALPIX_COLUMN if split.by == "sky" else "object_id"


def assign(keys: pa.Array | pa.ChunkedArray, split: Split, seed: int, tested: bool = True) -> NDArray[np.str_]:
    """The split of each row, determined by its key and the seed alone.

    A sky block (or a row) keeps its split when other rows come or go, so that test rows stay test rows when labels
    arrive. The test and calibration rows also stay the same when the fractions of train and valid change.

    Parameters
    ----------
    keys : `_healpix_29` for `split.by` sky, `object_id` (integer or text) for row.
    tested : False assigns all rows to train, valid and calib in their proportion, because the test rows are given apart.

    Returns
    -------
    (n,) of `train`, `valid`, `calib`, `test`.
    """
    values = keys.to_numpy(zero_copy_only=False) if isinstance(keys, pa.Array) else keys.to_numpy()
    if split.by == "sky":
        values = at_order(values, split.block_order)
    names = ["test", "calib", "valid", "train"] if tested else ["calib", "valid", "train"]
    fractions = np.array([getattr(split, name) for name in names])
    bounds = np.cumsum(fractions / fractions.sum())[:-1]
    return np.array(names)[np.searchsorted(bounds, uniform(values, seed), side="right")]


def uniform(keys: NDArray[Any], seed: int) -> NDArray[np.float64]:
    """(n,) numbers in [0, 1), determined by each key (integer or text) and the seed alone."""
    if keys.dtype.kind in "iu":
        hashed = _splitmix64(keys.astype(np.uint64) ^ _splitmix64(np.array([seed], np.uint64)))
    else:
        hashed = np.array([xxhash.xxh3_64_intdigest(str(key).encode(), seed) for key in keys], np.uint64)
    return (hashed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele, Lea & Flood 2014, OOPSLA, fig. 12)."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def check_counts(counts: dict[str, int], split: Split, labelled: int, removed: dict[str, int]) -> None:
    """Refuse a split with too few rows.

    Parameters
    ----------
    counts : rows per split.
    labelled : rows with a label, before any was removed.
    removed : rows removed, by reason.

    Raises
    ------
    SampleError
    """
    poor = [name for name in SPLITS if counts[name] < MIN_ROWS[name]]
    if not poor:
        return
    gone = ", ".join(f"{reason} {count:,}" for reason, count in removed.items() if count) or "none"
    ways = ["add labels or relax the cuts"]
    if sum(counts.values()) >= 2 * sum(MIN_ROWS.values()):
        ways = ["larger fractions under split", "another seed", *ways]
        if split.by == "sky":
            ways.insert(0, f"smaller blocks (split.block_order above {split.block_order}) or split.by: row")
    raise SampleError(
        f"too few labelled rows: {', '.join(f'{name} has {counts[name]:,} and needs {MIN_ROWS[name]}' for name in poor)}; "
        f"{labelled:,} rows have a label, {sum(counts.values()):,} of them can be used (removed: {gone}); "
        f"what helps: {'; '.join(ways)}"
    )


# ------------------------------------------------------------------------------------------------------- rows


def by_partition(rows: pa.Table) -> Iterator[tuple[Partition, NDArray[np.int64]]]:
    """The partitions of the rows, in order on the sky, each with the positions of its rows in `rows`.

    Parameters
    ----------
    rows : has `norder`, `npix` and `row`; positions come out in the order of `row`.
    """
    order, pixel, row = (rows.column(name).to_numpy().astype(np.int64) for name in ("norder", "npix", "row"))
    start = pixel << 2 * (HEALPIX_ORDER - order)
    sorting = np.lexsort((row, start))
    edges = np.flatnonzero(np.diff(start[sorting])) + 1
    for positions in np.split(sorting, edges) if len(sorting) else []:
        yield Partition(int(order[positions[0]]), int(pixel[positions[0]])), positions


def take(catalog: Path, partition: Partition, rows: pa.Table, names: Sequence[str] | None = None) -> pa.Table:
    """Read rows of one partition by row number; only the row groups that have any of them are read.

    Parameters
    ----------
    rows : `row`, ascending, and `object_id`, which is compared with that of the partition.
    names : columns; all of them by default.

    Raises
    ------
    SampleError
        Where the partition has other objects at these row numbers: it is not the one that was matched.
    """
    wanted = rows.column("row").to_numpy()
    path = partition.file(catalog)
    with pq.ParquetFile(path) as file:
        columns = list(names) if names is not None else file.schema_arrow.names
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        groups = np.searchsorted(first, wanted, side="right") - 1
        inside = bool(len(wanted)) and bool(wanted[0] >= 0) and bool(wanted[-1] < first[-1])
        pieces = [
            file.read_row_group(group, columns=list(dict.fromkeys([*columns, "object_id"]))).take(
                pa.array(wanted[groups == group] - first[group])
            )
            for group in (np.unique(groups) if inside else [])
        ]
    found = pa.concat_tables(pieces) if pieces else None
    if found is None or not _same(found.column("object_id"), rows.column("object_id")):
        raise SampleError(
            f"{path}: its rows are not the objects that were matched: it was rewritten after the cross-match; "
            "run the stages from crossmatch again"
        )
    return found.select(columns)


def _same(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    return bool(pc.all(pc.equal(one, other.cast(one.type)), skip_nulls=False).as_py())


# ------------------------------------------------------------------------------------------------------ tables


def write(
    pieces: Iterable[tuple[pa.Table, pa.ChunkedArray | pa.Array]],
    counts: dict[str, Any],
    out: Path,
    weight: NDArray[np.float64] | None = None,
    warnings: Warnings | None = None,
) -> dict[str, Any]:
    """Write `train`, `valid`, `calib` and `test.parquet` and, last, `sample.json`.

    Parameters
    ----------
    pieces : rows of `clean/` with `LABEL_COLUMNS`, and the split of each row; one piece after the other is in memory.
    counts : content of `split.json`.
    out : folder of the tables.
    weight : (n,) weights of the rows of all pieces, 1 if None.
    warnings : warnings for `sample.json`.
    """
    with ExitStack() as stack:
        tables = {
            name: stack.enter_context(_SplitTable(stack.enter_context(atomic_write(out / f"{name}.parquet"))))
            for name in SPLITS
        }
        first = 0
        for table, side in pieces:
            last = first + table.num_rows
            weighted = np.ones(table.num_rows) if weight is None else weight[first:last]
            table, first = table.append_column(WEIGHT, pa.array(weighted)), last
            for name in SPLITS:
                tables[name].write(table.filter(pc.equal(side, name)))
        written = {name: describe(tables[name].labels) for name in SPLITS}
        for name in SPLITS:
            if written[name]["rows"] != counts["splits"][name]:
                raise SampleError(
                    f"{name}: {written[name]['rows']:,} rows, but split.json counts {counts['splits'][name]:,}"
                )
    report = {"steps": counts["steps"], "splits": written, "warnings": warnings or []}
    write_json(out / "sample.json", report)
    return report


class _SplitTable:
    """The table of a split, written row group by row group."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._labels: list[pa.Table] = []
        self._rows = 0

    def write(self, rows: pa.Table) -> None:
        """Append rows."""
        self._waiting.append(rows)
        self._labels.append(rows.select(["redshift", "label_source"]))
        self._rows += rows.num_rows
        if self._rows >= rows_of(GROUP_BYTES, rows.schema, GROUP_ROWS):
            self._flush()

    @property
    def labels(self) -> pa.Table:
        """Redshifts and label sources of all rows."""
        return pa.concat_tables(self._labels)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is None and (self._rows or self._writer is None):
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        table = pa.concat_tables(self._waiting)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table, rows_of(GROUP_BYTES, table.schema, GROUP_ROWS))
        self._waiting, self._rows = [], 0


def describe(rows: pa.Table) -> dict[str, Any]:
    """Rows, redshift quartiles and label sources of a table."""
    redshift = rows.column("redshift").to_numpy()
    levels = dict(
        zip(("min", "q25", "median", "q75", "max"), np.quantile(redshift, [0, 0.25, 0.5, 0.75, 1]), strict=True)
    )
    sources = pc.value_counts(rows.column("label_source")).to_pylist()
    return {
        "rows": rows.num_rows,
        "redshift": {name: round(float(value), 6) for name, value in levels.items()},
        "label_source": {entry["values"]: entry["counts"] for entry in sources},
    }
