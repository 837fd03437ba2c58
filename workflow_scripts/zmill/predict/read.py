"""Reading of partitions of a clean catalogue as one stream of record batches, checked against their sidecars."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from zmill.catalog import hats
from zmill.catalog.hats import CatalogError, Partition
from zmill.catalog.sizes import BATCH_BYTES, rows_of

IDENTITY = ("_healpix_29", "object_id", "ra", "dec")
"""Columns that every output copies unchanged."""

HASH_BYTES = 1 << 22


@dataclass(frozen=True)
class Begin:
    """Start of a partition of `rows` rows, from a file with the content hash `hash`."""

    partition: Partition
    schema: pa.Schema
    rows: int
    hash: str


@dataclass(frozen=True)
class End:
    """End of a partition, which was read completely and agrees with its sidecar."""

    partition: Partition


@dataclass(frozen=True)
class Broken:
    """The partition cannot be used, with the reason; batches of it may have been sent before."""

    partition: Partition
    why: str


Event: TypeAlias = Begin | pa.RecordBatch | End | Broken


def stream(
    catalog: Path, partitions: Iterable[Partition], wanted: list[str], needed: list[str], batch_rows: int
) -> Iterator[Event]:
    """`Begin`, record batches, `End` for each partition; `Broken` where it cannot be read.

    Parameters
    ----------
    wanted : columns to read where the file has them, in addition to the identity columns.
    needed : columns without which the partition cannot be used.
    """
    for partition in partitions:
        try:
            yield from _partition(catalog, partition, wanted, needed, batch_rows)
        except (CatalogError, pa.ArrowException, OSError, ValueError) as error:
            yield Broken(partition, f"{partition.file(catalog)}: {error}")


def _partition(
    catalog: Path, partition: Partition, wanted: list[str], needed: list[str], batch_rows: int
) -> Iterator[Event]:
    sidecar = hats.sidecar(catalog, partition)
    # The file stays open from the hash to the last row, so that a file that replaces it meanwhile is not read.
    with pa.OSFile(str(partition.file(catalog))) as source:
        if _hash(source) != sidecar["xxh3_128"]:
            raise CatalogError(
                f"its content is not what its sidecar {partition.sidecar(catalog)} says: the file is damaged or was "
                "written by something else; remove the sidecar and run the stage that writes it again"
            )
        parquet = pq.ParquetFile(source)
        names = set(parquet.schema_arrow.names)
        missing = [column for column in (*IDENTITY, *needed) if column not in names]
        if missing:
            raise CatalogError(f"no column {', '.join(missing)}, which the model needs")
        columns = [column for column in (*IDENTITY, *wanted) if column in names]
        schema = pa.schema([parquet.schema_arrow.field(column) for column in columns])
        yield Begin(partition, schema, sidecar["rows"], sidecar["xxh3_128"])
        count = 0
        for batch in parquet.iter_batches(batch_size=rows_of(BATCH_BYTES, schema, batch_rows), columns=columns):
            count += batch.num_rows
            yield batch
    if count != sidecar["rows"]:
        raise CatalogError(f"{count} rows, but its sidecar says {sidecar['rows']}")
    if hats.sidecar(catalog, partition)["xxh3_128"] != sidecar["xxh3_128"]:
        raise CatalogError("the partition was written again while it was being read; run again once that has ended")
    yield End(partition)


def _hash(source: pa.NativeFile) -> str:
    digest = xxhash.xxh3_128()
    while len(block := source.read_buffer(HASH_BYTES)):
        digest.update(block)
    source.seek(0)
    return digest.hexdigest()
