"""Tasks of the import on one piece of the input or one partition of the output; each writes its files atomically.

A piece is a range of rows of one file. The names of its files contain its identity (file, content, rows, settings), so that
finished work is reused after an interruption or on another night, and is not reused where the input changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from itertools import pairwise
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zmill.catalog.files import atomic_write, read_json, write_json
from zmill.catalog.hats import Partition, write_partition
from zmill.catalog.sizes import row_bytes, rows_of
from zmill.catalog.sky import HEALPIX_COLUMN, healpix
from zmill.inputs.further import Further
from zmill.inputs.registry import MAP, of_survey
from zmill.survey import duplicates
from zmill.survey.copies import COPIES, copies
from zmill.survey.counts import Counts
from zmill.survey.kinds import TypeChanged
from zmill.survey.partitioning import histogram, merge, partition_numbers
from zmill.survey.readers import ReadError, Span, open_table
from zmill.survey.rows import (
    REASONS,
    REJECTED,
    Layout,
    array_columns,
    arrow,
    convert,
    input_columns,
    numeric_columns,
    object_ids,
    positions,
    set_aside,
)
from zmill.survey_definition import Survey

P = ParamSpec("P")
R = TypeVar("R")

BATCH_ROWS, BATCH_BYTES = 65_536, 32 << 20
"""Most rows that are converted at a time, few enough to fit the processor's cache, and their largest size in bytes."""
BLOCK_BYTES = 96 << 20
"""Converted rows are held up to this size, then grouped by partition and written to the scratch folder."""


@dataclass(frozen=True)
class Piece:
    """Rows `span` of the file `path`; `number` counts the pieces in the order of the files."""

    number: int
    path: Path
    format: str
    span: Span
    identity: str


@dataclass(frozen=True)
class Work:
    """Settings that are common to all tasks.

    scratch, kept : folders of files that are needed until the import ends, and until the next import.
    order : HEALPix order in which rows are counted: that of the smallest partition.
    further : files that the import reads in addition to the survey's own.
    """

    layout: Layout
    scratch: Path
    kept: Path
    order: int
    further: Further

    @property
    def ebv_map(self) -> Path | None:
        """File of E(B-V), or None."""
        return next(iter(self.further.files.get(MAP, ())), None)

    @property
    def survey(self) -> Survey:
        """The survey's definition."""
        return self.layout.survey

    @property
    def batch_rows(self) -> int:
        """Rows that are converted at a time."""
        return rows_of(BATCH_BYTES, self.layout.schema, BATCH_ROWS)

    def counted(self, piece: Piece) -> Path:
        """Rows, and rows per pixel."""
        return self.kept / f"{piece.identity}.counted.npz"

    def hashes(self, piece: Piece) -> Path:
        """Sorted hashes of the identifiers."""
        return self.kept / f"{piece.identity}.hashes.npy"

    def grouped(self, piece: Piece, plan: str) -> Path:
        """Rows grouped by partition, Arrow IPC."""
        return self.scratch / f"{piece.identity}.{plan}.arrow"

    def index(self, piece: Piece, plan: str) -> Path:
        """Which batches of the grouped rows belong to which partition; written last."""
        return self.scratch / f"{piece.identity}.{plan}.json"

    def rejected(self, piece: Piece) -> Path:
        """Bad rows."""
        return self.kept / f"{piece.identity}.rejected.parquet"

    def counts(self, piece: Piece) -> Path:
        """Counts of the rows (`Counts`)."""
        return self.kept / f"{piece.identity}.json"

    def is_counted(self, piece: Piece) -> bool:
        """Whether the first pass has done a piece."""
        named = self.survey.columns.object_id is not None
        return self.counted(piece).is_file() and (not named or self.hashes(piece).is_file())

    def is_converted(self, piece: Piece) -> bool:
        """Whether the second pass has done a piece, in this import or an earlier one."""
        return self.counts(piece).is_file() and self.rejected(piece).is_file()


def naming_its_file(task: Callable[Concatenate[Piece, P], R]) -> Callable[Concatenate[Piece, P], R]:
    """Decorator of a task on a piece that adds the file to its errors."""

    @wraps(task)
    def run(piece: Piece, *arguments: P.args, **options: P.kwargs) -> R:
        try:
            return task(piece, *arguments, **options)
        except ReadError as error:
            if str(piece.path) in str(error):
                raise
            raise ReadError(f"{piece.path}: {error}") from None
        except TypeChanged as change:
            raise TypeChanged(change.column, change.kind, str(piece.path)) from None

    return run


# ------------------------------------------------------------------------------- first pass: positions and ids


@naming_its_file
def count(piece: Piece, work: Work) -> int:
    """Count a piece's rows by pixel and keep the hashes of its identifiers; returns the number of rows."""
    named = work.survey.columns.object_id is not None
    rows, histograms, hashed = 0, [], []
    for batch in _batches(piece, work, position_columns(work.survey)):
        ra, dec, reason = positions(batch, work.survey)
        good = reason == 0
        if named:
            ids = object_ids(batch, work.layout, 0)
            if ids.null_count:
                good &= ids.is_valid().to_numpy(zero_copy_only=False)
            hashed.append(duplicates.hashes(ids if good.all() else ids.filter(pa.array(good))))
        if not good.all():
            ra, dec = ra[good], dec[good]
        histograms.append(histogram(healpix(ra, dec, work.order)))
        rows += batch.num_rows
    empty = np.empty(0, np.int64)
    pixels, counts = merge(histograms) if histograms else (empty, empty)
    if named:
        with atomic_write(work.hashes(piece), durable=False) as path, open(path, "wb") as file:
            np.save(file, np.sort(np.concatenate(hashed)) if hashed else np.empty(0, np.uint64))
    with atomic_write(work.counted(piece), durable=False) as path, open(path, "wb") as file:
        np.savez(file, rows=np.int64(rows), pixels=pixels, counts=counts)
    return rows


@naming_its_file
def identifiers(piece: Piece, work: Work, wanted: duplicates.Hashes) -> dict[int | str, int]:
    """The identifiers of a piece, of rows with a position, whose hash is among `wanted`, and how often each occurs."""
    found: dict[int | str, int] = {}
    for batch in _batches(piece, work, position_columns(work.survey)):
        ids = object_ids(batch, work.layout, 0)
        good = (positions(batch, work.survey)[2] == 0) & ids.is_valid().to_numpy(zero_copy_only=False)
        ids = ids.filter(pa.array(good))
        for value in ids.filter(pa.array(np.isin(duplicates.hashes(ids), wanted))).to_pylist():
            found[value] = found.get(value, 0) + 1
    return found


# -------------------------------------------------------------------- second pass: rows grouped by partition


@naming_its_file
def group(piece: Piece, work: Work, first_row: int, starts_file: Path, owners_file: Path, plan: str) -> int:
    """Convert a piece's rows and write them to the scratch folder, the rows of a partition together.

    Parameters
    ----------
    first_row : number of the piece's first row over all files.
    starts_file, owners_file : the partitions' first indices, and which piece keeps a repeated identifier.

    Returns
    -------
    The number of rows read.
    """
    starts, owners = _starts(starts_file), _owners(owners_file)
    ebv_at = None
    if work.ebv_map:
        from zmill.inputs.photometry.extinction import read_map

        ebv_at = read_map(work.ebv_map).at
    schema = work.layout.schema
    block_rows = max(work.batch_rows, BLOCK_BYTES // row_bytes(schema))
    seen: set[int | str] = set()
    index: dict[str, list[int]] = {}
    counts = Counts()
    written = 0
    offset = piece.span[0] if piece.span else 0
    with (
        atomic_write(work.grouped(piece, plan), check=False, durable=False) as path,
        atomic_write(work.rejected(piece), durable=False) as rejected_path,
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
        pq.ParquetWriter(rejected_path, REJECTED) as rejected_writer,
    ):

        def flush(block: list[pa.RecordBatch]) -> None:
            nonlocal written
            for number, part in _by_partition(block, starts):
                writer.write_batch(part)
                index.setdefault(str(number), []).append(written)
                written += 1

        block: list[pa.RecordBatch] = []
        held = 0
        for batch in _batches(piece, work, list(input_columns(work.survey))):
            converted = convert(batch, work.layout, first_row + counts.rows, ebv_at, work.further)
            reason, ids = converted.reason, converted.columns["object_id"]
            if owners.first_piece:
                positioned = np.flatnonzero(
                    np.isin(reason, _POSITIONED) & ids.is_valid().to_numpy(zero_copy_only=False)
                )
                later = owners.later(ids.take(pa.array(positioned)), piece.number, seen)
                reason[positioned[later]] = REASONS.index("duplicate_object_id")
            good = reason == 0
            block.append(arrow(converted.columns, schema, None if good.all() else good))
            held += block[-1].num_rows
            if not good.all():
                bad = set_aside(converted.columns, reason, piece.path, offset + counts.rows)
                rejected_writer.write_table(bad)
            counts.add(converted.counted())
            if held >= block_rows:
                flush(block)
                block, held = [], 0
        flush(block)
    write_json(work.counts(piece), counts.json(), durable=False)
    content = {"batches": index, "bytes": work.grouped(piece, plan).stat().st_size}
    write_json(work.index(piece, plan), content, durable=False)
    return counts.rows


_POSITIONED = [
    code for code, name in enumerate(REASONS) if not name.startswith("position_") and name != "object_id_missing"
]
"""Reason codes of rows that the first pass counted: rows with a position. A repeated identifier has precedence over other faults."""


def _by_partition(block: list[pa.RecordBatch], starts: np.ndarray) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of each partition together, in the order of the sky."""
    if not sum(batch.num_rows for batch in block):
        return
    table = pa.Table.from_batches(block)
    numbers = partition_numbers(table.column(HEALPIX_COLUMN).to_numpy(), starts)
    if len(starts) < 1 << 16:
        numbers = numbers.astype(np.uint16)
    if np.any(numbers[1:] < numbers[:-1]):
        order = np.argsort(numbers, kind="stable")
        table, numbers = table.combine_chunks().take(pa.array(order)), numbers[order]
    edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    for first, behind in pairwise(edges):
        yield int(numbers[first]), table.slice(first, behind - first).combine_chunks().to_batches()[0]


# ------------------------------------------------------------------------------- third pass: the partitions


def write(catalog: Path, partition: Partition, sources: Sequence[tuple[Path, list[int]]], layout: Layout) -> int:
    """Collect a partition's rows, sort them by `_healpix_29` and then `object_id`, and write the partition.

    Parameters
    ----------
    sources : files of grouped rows and the numbers of the batches in them that belong to the partition.

    Returns
    -------
    The number of rows.
    """
    schema = layout.schema
    batches = []
    for path, numbers in sources:
        with pa.OSFile(str(path), "rb") as source, pa.ipc.open_file(source) as reader:
            batches += [reader.get_batch(number) for number in numbers]
    table = pa.Table.from_batches(batches, schema=schema).combine_chunks()
    del batches
    order = sorted_order(table)
    found = len(copies(table, of_survey(layout.survey), order))
    with write_partition(catalog, partition, schema, {COPIES: found}) as writer:
        for first in range(0, table.num_rows, writer.group_rows):
            writer.write(table.take(pa.array(order[first : first + writer.group_rows])))
    return table.num_rows


def sorted_order(table: pa.Table) -> np.ndarray:
    """Row numbers that sort by `_healpix_29`, and rows of the same index by `object_id`."""
    index = table.column(HEALPIX_COLUMN).to_numpy()
    order = np.argsort(index)
    ordered = index[order]
    same = ordered[1:] == ordered[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    if len(tied):
        rows = order[tied]
        keys = table.select([HEALPIX_COLUMN, "object_id"]).take(pa.array(rows))
        by_both = pc.sort_indices(keys, sort_keys=[(HEALPIX_COLUMN, "ascending"), ("object_id", "ascending")])
        order[tied] = rows[by_both.to_numpy()]
    return order


# ------------------------------------------------------------------------------------------------ shared


def position_columns(survey: Survey) -> list[str]:
    """The columns of identifier and position, which are all that the first pass reads."""
    columns = survey.columns
    return list(dict.fromkeys(name for name in (columns.object_id, columns.ra, columns.dec) if name))


def _batches(piece: Piece, work: Work, columns: list[str]) -> Iterator[pa.RecordBatch]:
    survey = work.survey
    table = open_table(piece.path, piece.format, survey.group)
    yield from table.batches(
        columns, work.batch_rows, piece.span, numeric_columns(survey), arrays=array_columns(survey) & set(columns)
    )


@lru_cache(maxsize=1)
def _starts(path: Path) -> np.ndarray:
    return np.asarray(np.load(path))


@lru_cache(maxsize=1)
def _owners(path: Path) -> duplicates.Owners:
    content = read_json(path)
    return duplicates.Owners(dict(zip(content["object_ids"], content["pieces"], strict=True)))
