"""Writing and reading HATS catalogues: one Parquet file per HEALPix pixel, each with a sidecar of its content hash.

Layout (hats 1.0): `<catalog>/dataset/Norder=k/Dir=d/Npix=n.parquet`, `partition_info.csv`, `hats.properties`,
`dataset/_common_metadata`. zmill adds `sidecars/k/d/n.json` with rows, bytes and hash (the name keeps
HATS readers from taking it for a partition).
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from zmill import __version__
from zmill.catalog.files import MEND, Damaged, atomic_write, read_json, write_json
from zmill.catalog.sizes import GROUP_BYTES, rows_of
from zmill.catalog.sky import HEALPIX_COLUMN, HEALPIX_ORDER

log = logging.getLogger(__name__)

ROW_GROUP_ROWS = 131_072
"""Rows in a row group: the piece of a partition that is read at a time and that statistics can skip."""
CONTENT = "content.json"
"""In a finished catalogue: its number of rows and a hash of all partitions, which changes exactly when a row changes."""


class CatalogError(Exception):
    """A catalogue on disk is damaged or incomplete."""


@dataclass(frozen=True, order=True)
class Partition:
    """A HEALPix NESTED pixel that is one file of a catalogue."""

    order: int
    pixel: int

    @property
    def name(self) -> str:
        """`Norder=k/Dir=d/Npix=n`."""
        return f"Norder={self.order}/Dir={self.pixel // 10_000 * 10_000}/Npix={self.pixel}"

    def file(self, catalog: Path) -> Path:
        """Where the partition's rows are."""
        return catalog / "dataset" / f"{self.name}.parquet"

    def sidecar(self, catalog: Path) -> Path:
        """Where the partition's row count and content hash are."""
        return catalog / "sidecars" / str(self.order) / str(self.pixel // 10_000) / f"{self.pixel}.json"

    def interval(self) -> tuple[int, int]:
        """First index of order 29 in the pixel and first one behind it."""
        shift = 2 * (HEALPIX_ORDER - self.order)
        return self.pixel << shift, (self.pixel + 1) << shift


class _HashingFile:
    """A file opened for writing that hashes the bytes written to it."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 (closed by close)
        self.digest = xxhash.xxh3_128()
        self.bytes = 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self.bytes

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed


class PartitionWriter:
    """Takes a partition's record batches in the order of `_healpix_29`; see `write_partition`."""

    def __init__(self, sink: _HashingFile, schema: pa.Schema) -> None:
        floats = [field.name for field in schema if pa.types.is_floating(field.type) or pa.types.is_nested(field.type)]
        plain = {*floats, HEALPIX_COLUMN, "object_id"}
        self._sink = sink
        self.group_rows = rows_of(GROUP_BYTES, schema, ROW_GROUP_ROWS)
        self._writer = pq.ParquetWriter(
            pa.PythonFile(sink, mode="w"),
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[field.name for field in schema if field.name not in plain],
            write_statistics=[name for name in (HEALPIX_COLUMN,) if name in schema.names],
        )
        self.rows = 0

    def write(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Append rows."""
        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        self._writer.write_table(table, row_group_size=self.group_rows)
        self.rows += table.num_rows

    def close(self) -> None:
        """End the file."""
        self._writer.close()
        self._sink.close()


@contextmanager
def write_partition(
    catalog: Path, partition: Partition, schema: pa.Schema, extra: dict[str, Any] | None = None
) -> Iterator[PartitionWriter]:
    """Write one partition and then its sidecar; neither appears before it is complete.

    Parameters
    ----------
    extra : further entries of the sidecar, such as the hash of the input that the partition was made from.
    """
    with atomic_write(partition.file(catalog), check=False) as temporary:
        sink = _HashingFile(temporary)
        writer = PartitionWriter(sink, schema)
        try:
            yield writer
        finally:
            writer.close()
    write_json(
        partition.sidecar(catalog),
        {
            "rows": writer.rows,
            "bytes": sink.bytes,
            "xxh3_128": sink.digest.hexdigest(),
            "schema": xxhash.xxh3_64_hexdigest(schema.remove_metadata().serialize()),
            **(extra or {}),
        },
    )


def remove_unfinished(catalog: Path, partition: Partition) -> None:
    """Remove the temporary files of a killed job; no other job may be writing the partition."""
    for path in (partition.file(catalog), partition.sidecar(catalog)):
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            left.unlink()


def sidecar(catalog: Path, partition: Partition) -> dict[str, Any]:
    """Row count, bytes and content hash of a partition.

    Raises
    ------
    CatalogError
        Where there is none, or a damaged one.
    """
    path = partition.sidecar(catalog)
    try:
        content: dict[str, Any] = read_json(path)
    except FileNotFoundError:
        raise CatalogError(f"{path}: missing; the partition was never finished: run again") from None
    except Damaged as error:
        raise CatalogError(str(error)) from None
    return content


def is_complete(catalog: Path, partition: Partition) -> bool:
    """Whether a partition and its sidecar exist and the file has the size that was written."""
    try:
        return partition.file(catalog).stat().st_size == sidecar(catalog, partition)["bytes"]
    except (FileNotFoundError, NotADirectoryError, CatalogError):
        return False


def content_hash(catalog: Path, found: Iterable[Partition]) -> str:
    """Hash of the content of partitions, from their sidecars; it does not depend on when they were written."""
    lines = "".join(f"{partition.name} {sidecar(catalog, partition)['xxh3_128']}\n" for partition in found)
    return xxhash.xxh3_128_hexdigest(lines.encode())


def partitions(catalog: Path) -> list[Partition]:
    """The partitions of a catalogue in the order of the sky (of their first index of order 29)."""
    path = catalog / "partition_info.csv"
    if not path.is_file():
        raise CatalogError(f"{path}: missing; {catalog} is not a finished HATS catalogue")
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            found = [Partition(int(row["Norder"]), int(row["Npix"])) for row in csv.DictReader(handle)]
    except (KeyError, TypeError, ValueError) as error:
        raise CatalogError(f"{path}: damaged ({type(error).__name__}: {error}): {MEND}") from None
    return sorted(found, key=lambda partition: partition.interval())


def rows(catalog: Path) -> int:
    """Number of rows of a catalogue, by its sidecars."""
    return sum(sidecar(catalog, partition)["rows"] for partition in partitions(catalog))


def read_columns(catalog: Path, partition: Partition, columns: list[str] | None = None) -> pa.Table:
    """A partition's rows, or some of its columns."""
    return pq.ParquetFile(partition.file(catalog)).read(columns=columns)


def batches(catalog: Path, partition: Partition, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """A partition's rows in batches of at most `batch_rows`."""
    yield from pq.ParquetFile(partition.file(catalog)).iter_batches(batch_size=batch_rows, columns=columns)


def finish(catalog: Path, name: str, found: Iterable[Partition], ra: str = "ra", dec: str = "dec") -> int:
    """Write the metadata that make a folder of partitions a HATS catalogue; called when all partitions exist.

    Partitions of an earlier run that are not in `found` are removed, because readers read all files of the folder.
    `partition_info.csv` is written last: where it exists, the catalogue is complete.

    Returns
    -------
    The number of rows.

    Raises
    ------
    CatalogError
        Where a partition's sidecar is missing or schemas differ.
    """
    ordered = sorted(found, key=lambda partition: partition.interval())
    if not ordered:
        raise CatalogError(f"{catalog}: no partition was written: the input has no row that can be used")
    sidecars = {partition: sidecar(catalog, partition) for partition in ordered}
    schemas = {entry.get("schema") for entry in sidecars.values()}
    if None in schemas or len(schemas) > 1:
        _refuse_other_columns(catalog, ordered)
    schema = pq.read_schema(ordered[0].file(catalog)).remove_metadata()
    count = sum(entry["rows"] for entry in sidecars.values())
    _remove_others(catalog, ordered)
    write_json(catalog / CONTENT, {"rows": count, "xxh3_128": content_hash(catalog, ordered)})
    with atomic_write(catalog / "dataset" / "_common_metadata") as temporary:
        pq.write_metadata(schema, temporary)
    area = sum(0.25**partition.order for partition in ordered) / 12
    properties = {
        "obs_collection": name,
        "dataproduct_type": "object",
        "hats_nrows": count,
        "hats_col_ra": ra,
        "hats_col_dec": dec,
        "hats_col_healpix": HEALPIX_COLUMN,
        "hats_col_healpix_order": HEALPIX_ORDER,
        "hats_npix_suffix": ".parquet",
        "hats_max_rows": max(entry["rows"] for entry in sidecars.values()),
        "hats_order": max(partition.order for partition in ordered),
        "moc_sky_fraction": f"{area:.8f}",
        "hats_builder": f"zmill {__version__}",
        "hats_version": "v1.0",
    }
    text = "#HATS catalog\n" + "".join(f"{key}={value}\n" for key, value in properties.items())
    for file in ("hats.properties", "properties"):
        with atomic_write(catalog / file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    with atomic_write(catalog / "partition_info.csv") as temporary:
        lines = "".join(f"{partition.order},{partition.pixel}\n" for partition in ordered)
        temporary.write_text("Norder,Npix\n" + lines, encoding="utf-8")
    return count


def _refuse_other_columns(catalog: Path, ordered: list[Partition]) -> None:
    """Compare the columns of every file with those of the first; only needed where sidecars do not show that they are equal."""
    first = ordered[0].file(catalog)
    schema = pq.read_schema(first).remove_metadata()
    for partition in ordered:
        if not pq.read_schema(partition.file(catalog)).remove_metadata().equals(schema):
            raise CatalogError(f"{partition.file(catalog)}: its columns differ from those of {first}")


def _remove_others(catalog: Path, kept: Iterable[Partition]) -> None:
    """Remove the files of all other partitions and the temporary files of killed jobs; other files stay."""
    wanted = {path for partition in kept for path in (partition.file(catalog), partition.sidecar(catalog))}
    files = ("Npix=*.parquet", ".Npix=*.tmp")
    found = [path for name in files for path in catalog.glob(f"dataset/Norder=*/Dir=*/{name}")]
    found += catalog.glob("sidecars/*/*/*.json")
    found += catalog.glob("sidecars/*/*/.*.tmp")
    others = [path for path in found if path not in wanted]
    if others:
        (catalog / "partition_info.csv").unlink(missing_ok=True)
        log.info("%s: %d files of an earlier run are removed", catalog, len(others))
    for path in others:
        path.unlink()


def assert_sorted(healpix29: np.ndarray, where: str) -> None:
    """Refuse rows that are not in the order of `_healpix_29`."""
    if len(healpix29) > 1 and bool(np.any(np.diff(healpix29) < 0)):
        raise CatalogError(f"{where}: rows are not sorted by {HEALPIX_COLUMN}, as HATS wants them")
