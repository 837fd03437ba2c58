"""Verification of a release folder against its record, byte by byte, and of its HATS layout."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zmill.catalog.files import file_hash
from zmill.catalog.hats import CatalogError, Partition, partitions
from zmill.catalog.sky import HEALPIX_COLUMN
from zmill.release.store import RECORD, Record, ReleaseError

REQUIRED = {"photoz": ("object_id", "ra", "dec", "z_mode", "z_median"), "pdf": ("object_id", "pdf")}
"""Required columns of each catalogue."""


TURNS = 30
"""Each release reads one of this many parts of the trusted partitions again."""
Trusted = dict[str, dict[str, list[Any]]]
"""Catalogue -> name of a partition -> its `stamp`, of files that were read completely and verified."""


@dataclass(frozen=True)
class Fault:
    """A difference between a release and its record."""

    name: str
    """Path of the file inside the release."""
    what: str
    known: str | None = None
    """Recorded hash of the file, by which a copy of it can be found; None where a copy would not repair the fault."""


def verify(folder: Path, record: Record, threads: int = 1, trusted: Trusted | None = None) -> None:
    """Compare a release folder with its record.

    Every file is read and its hash compared; partitions are compared in rows, schema and pixel too.

    Parameters
    ----------
    trusted : stamps of partitions that are not read again while their files are unchanged, except one in `TURNS`.

    Raises
    ------
    ReleaseError
        The message names the files that differ from the record (the first ten).
    """
    found = [fault.what for fault in faults(folder, record, threads, trusted)]
    if found:
        more = f"; and {len(found) - 10} more" if len(found) > 10 else ""
        raise ReleaseError(f"{folder.name}: not complete: {'; '.join(found[:10])}{more}")


def faults(folder: Path, record: Record, threads: int = 1, trusted: Trusted | None = None) -> list[Fault]:
    """All differences from the record; parameters as for `verify`."""
    found = [fault for name, digest in record["files"].items() if (fault := _file_fault(folder / name, name, digest))]
    expected = {RECORD, *record["files"]}
    for name in record["catalogs"]:
        known = (trusted or {}).get(name, {})
        known = {key: one for key, one in known.items() if not _turn(partition_of(key), record["sequence"])}
        there, faulty = _catalog_faults(folder / name, name, record, threads, known)
        found += faulty
        expected |= there
    return found + [Fault(name, f"{name}: not in the record") for name in unknown(folder, expected)]


def lost(folder: Path, record: Record) -> list[Fault]:
    """Files that are missing or differ in size from the record, found without reading them."""
    found = [
        Fault(name, f"{name}: missing", digest)
        for name, digest in record["files"].items()
        if not (folder / name).is_file()
    ]
    for catalog, entries in record["catalogs"].items():
        for key, entry in entries["partitions"].items():
            path = partition_of(key).file(folder / catalog)
            if not path.is_file() or path.stat().st_size != entry["bytes"]:
                found.append(
                    Fault(
                        f"{catalog}/dataset/{key}.parquet",
                        f"{catalog}/{key}: missing or of another size",
                        entry["xxh3_128"],
                    )
                )
    return found


def unknown(folder: Path, expected: set[str]) -> list[str]:
    """Files among the partitions that the record does not name; readers of the folder would read their rows."""
    present = (path.relative_to(folder) for path in folder.glob("*/dataset/**/*") if path.is_file())
    return sorted(str(name) for name in present if str(name) not in expected and name.name[0] not in "._")


def stamp(root: Path, partition: str, record: Record, catalog: str) -> list[Any]:
    """Inode, size and modification time of a partition's file, its recorded hash, and that of the catalogue's schema."""
    there = partition_of(partition).file(root).stat()
    digest = record["catalogs"][catalog]["partitions"][partition]["xxh3_128"]
    schema = record["files"][f"{catalog}/dataset/_common_metadata"]
    return [there.st_ino, there.st_size, there.st_mtime_ns, digest, schema]


def _turn(partition: Partition, sequence: int) -> bool:
    return (partition.pixel + sequence) % TURNS == 0


def _catalog_faults(
    root: Path, name: str, record: Record, threads: int, trusted: dict[str, list[Any]]
) -> tuple[set[str], list[Fault]]:
    catalog = record["catalogs"][name]
    recorded = {partition_of(key): entry for key, entry in catalog["partitions"].items()}
    paths = {f"{name}/dataset/{partition.name}.parquet" for partition in recorded}
    try:
        schema = pq.read_schema(root / "dataset" / "_common_metadata")
        listed = set(partitions(root))
    except (OSError, pa.ArrowException, CatalogError) as error:
        return paths, [Fault(name, f"{name}: not a HATS catalogue ({error})")]
    found = [Fault(name, f"{name}: no column {column}") for column in REQUIRED[name] if column not in schema.names]
    if listed != set(recorded):
        what = f"{name}/partition_info.csv: lists {len(listed)} partitions, the record {len(recorded)} others"
        found.append(Fault(f"{name}/partition_info.csv", what))
    rows = _properties(root).get("hats_nrows")
    if rows != str(catalog["rows"]):
        what = f"{name}/hats.properties: hats_nrows is {rows}, the partitions have {catalog['rows']}"
        found.append(Fault(f"{name}/hats.properties", what))
    recorded = {
        partition: entry
        for partition, entry in recorded.items()
        if not partition.file(root).is_file()
        or trusted.get(partition.name) != stamp(root, partition.name, record, name)
    }
    with ThreadPoolExecutor(threads) as pool:
        checked = pool.map(lambda item: _partition_fault(root, name, item[0], item[1], schema), recorded.items())
        found += [fault for fault in checked if fault]
    return paths, found


def _partition_fault(
    root: Path, catalog: str, partition: Partition, recorded: dict[str, Any], schema: pa.Schema
) -> Fault | None:
    path, where = partition.file(root), f"{catalog}/{partition.name}"
    name = f"{catalog}/dataset/{partition.name}.parquet"
    fault = _file_fault(path, name, recorded["xxh3_128"], where)
    if fault:
        return fault
    content = pq.read_metadata(path)
    if content.num_rows != recorded["rows"]:
        return Fault(name, f"{where}: {content.num_rows} rows, expected {recorded['rows']}")
    if not content.schema.to_arrow_schema().remove_metadata().equals(schema.remove_metadata()):
        return Fault(name, f"{where}: its columns differ from dataset/_common_metadata")
    what = _pixel_fault(content, where, partition)
    return Fault(name, what) if what else None


def _pixel_fault(content: pq.FileMetaData, where: str, partition: Partition) -> str | None:
    """Whether the row groups' ranges of `_healpix_29` lie in the pixel, one behind the other."""
    column = content.schema.names.index(HEALPIX_COLUMN)
    lowest, end = partition.interval()
    for group in range(content.num_row_groups):
        statistics = content.row_group(group).column(column).statistics
        if content.row_group(group).num_rows == 0:
            continue
        if statistics is None or not statistics.has_min_max:
            return f"{where}: no statistics of {HEALPIX_COLUMN}"
        if statistics.min < lowest or statistics.max >= end:
            return f"{where}: rows out of its pixel or of order"
        lowest = statistics.max
    return None


def _file_fault(path: Path, name: str, digest: str, where: str | None = None) -> Fault | None:
    where = where or name
    if not path.is_file():
        return Fault(name, f"{where}: missing", digest)
    found = file_hash(path)
    return None if found == digest else Fault(name, f"{where}: content hash is {found}, expected {digest}", digest)


def _properties(root: Path) -> dict[str, str]:
    path = root / "hats.properties"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def partition_of(name: str) -> Partition:
    """The partition that `Norder=k/Dir=d/Npix=n` names."""
    order, _, pixel = (part.partition("=")[2] for part in name.split("/"))
    return Partition(int(order), int(pixel))
