"""Whether a release folder holds exactly what its record says, byte by byte, and is laid out as HATS wants it."""

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
"""Columns without which a catalogue is not what its name says."""


TURNS = 30
"""Of so many releases, each reads a share of the partitions that the others take on trust."""
Trusted = dict[str, dict[str, list[Any]]]
"""Catalogue -> name of a partition -> its `stamp`, of files that have been read whole and found right."""


@dataclass(frozen=True)
class Fault:
    """What is not as the record says."""

    name: str
    """Of the file, inside the release."""
    what: str
    known: str | None = None
    """Hash of the file as it should be, by which a copy of it can be told; None where no copy would mend the fault."""


def verify(folder: Path, record: Record, threads: int = 1, trusted: Trusted | None = None) -> None:
    """Hold a release folder against its record.

    Every file is read and its hash compared; partitions are compared in rows, schema and pixel too.

    Parameters
    ----------
    trusted : partitions that need not be read where they are the files that they were; one of `TURNS` is all the same.

    Raises
    ------
    ReleaseError
        Naming every file that is not as recorded (the first ten).
    """
    found = [fault.what for fault in faults(folder, record, threads, trusted)]
    if found:
        more = f"; and {len(found) - 10} more" if len(found) > 10 else ""
        raise ReleaseError(f"{folder.name}: not whole: {'; '.join(found[:10])}{more}")


def faults(folder: Path, record: Record, threads: int = 1, trusted: Trusted | None = None) -> list[Fault]:
    """All that is not as the record says; parameters as for `verify`."""
    found = [fault for name, told in record["files"].items() if (fault := _file_fault(folder / name, name, told))]
    expected = {RECORD, *record["files"]}
    for name in record["catalogs"]:
        known = (trusted or {}).get(name, {})
        known = {key: one for key, one in known.items() if not _turn(partition_of(key), record["sequence"])}
        there, faulty = _catalog_faults(folder / name, name, record, threads, known)
        found += faulty
        expected |= there
    return found + [Fault(name, f"{name}: not in the record") for name in unknown(folder, expected)]


def lost(folder: Path, record: Record) -> list[Fault]:
    """Files that are missing or have another size than the record says: seen without reading them."""
    found = [
        Fault(name, f"{name}: missing", told) for name, told in record["files"].items() if not (folder / name).is_file()
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
    """Files among the partitions that the record does not name: who reads the folder as a whole takes them for rows."""
    present = (path.relative_to(folder) for path in folder.glob("*/dataset/**/*") if path.is_file())
    return sorted(str(name) for name in present if str(name) not in expected and name.name[0] not in "._")


def stamp(root: Path, partition: str, record: Record, catalog: str) -> list[Any]:
    """A partition's file as it is on the disk (inode, size, time of change), its hash, and that of the catalogue's schema."""
    there = partition_of(partition).file(root).stat()
    told = record["catalogs"][catalog]["partitions"][partition]["xxh3_128"]
    schema = record["files"][f"{catalog}/dataset/_common_metadata"]
    return [there.st_ino, there.st_size, there.st_mtime_ns, told, schema]


def _turn(partition: Partition, sequence: int) -> bool:
    return (partition.pixel + sequence) % TURNS == 0


def _catalog_faults(
    root: Path, name: str, record: Record, threads: int, trusted: dict[str, list[Any]]
) -> tuple[set[str], list[Fault]]:
    catalog = record["catalogs"][name]
    told = {partition_of(key): entry for key, entry in catalog["partitions"].items()}
    paths = {f"{name}/dataset/{partition.name}.parquet" for partition in told}
    try:
        schema = pq.read_schema(root / "dataset" / "_common_metadata")
        listed = set(partitions(root))
    except (OSError, pa.ArrowException, CatalogError) as error:
        return paths, [Fault(name, f"{name}: not a HATS catalogue ({error})")]
    found = [Fault(name, f"{name}: no column {column}") for column in REQUIRED[name] if column not in schema.names]
    if listed != set(told):
        what = f"{name}/partition_info.csv: lists {len(listed)} partitions, the record {len(told)} others"
        found.append(Fault(f"{name}/partition_info.csv", what))
    rows = _properties(root).get("hats_nrows")
    if rows != str(catalog["rows"]):
        what = f"{name}/hats.properties: hats_nrows is {rows}, the partitions have {catalog['rows']}"
        found.append(Fault(f"{name}/hats.properties", what))
    told = {
        partition: entry
        for partition, entry in told.items()
        if not partition.file(root).is_file()
        or trusted.get(partition.name) != stamp(root, partition.name, record, name)
    }
    with ThreadPoolExecutor(threads) as pool:
        checked = pool.map(lambda item: _partition_fault(root, name, item[0], item[1], schema), told.items())
        found += [fault for fault in checked if fault]
    return paths, found


def _partition_fault(
    root: Path, catalog: str, partition: Partition, told: dict[str, Any], schema: pa.Schema
) -> Fault | None:
    path, where = partition.file(root), f"{catalog}/{partition.name}"
    name = f"{catalog}/dataset/{partition.name}.parquet"
    fault = _file_fault(path, name, told["xxh3_128"], where)
    if fault:
        return fault
    content = pq.read_metadata(path)
    if content.num_rows != told["rows"]:
        return Fault(name, f"{where}: {content.num_rows} rows, expected {told['rows']}")
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


def _file_fault(path: Path, name: str, told: str, where: str | None = None) -> Fault | None:
    where = where or name
    if not path.is_file():
        return Fault(name, f"{where}: missing", told)
    found = file_hash(path)
    return None if found == told else Fault(name, f"{where}: content hash is {found}, expected {told}", told)


def _properties(root: Path) -> dict[str, str]:
    path = root / "hats.properties"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def partition_of(name: str) -> Partition:
    """The partition that `Norder=k/Dir=d/Npix=n` names."""
    order, _, pixel = (part.partition("=")[2] for part in name.split("/"))
    return Partition(int(order), int(pixel))
