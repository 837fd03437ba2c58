"""HATS catalogues and collections of others: the primary table's partitions one after another; margins are not read."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zmill.catalog import hats
from zmill.catalog.files import ReadError
from zmill.catalog.hats import Partition
from zmill.catalog.sky import HEALPIX_COLUMN, healpix
from zmill.survey.readers.base import Span, Table
from zmill.survey.readers.parquet_format import describe_schema, group_spans

ENDINGS = ("hats.properties", "collection.properties")
NO_SURVEY = ("margin", "association", "index", "map")
"""Kinds of HATS tables whose rows are not, or not all, objects of a survey."""


class Reader(Table):
    """A HATS catalogue: a folder with `partition_info.csv`, or the primary table of a collection."""

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path if path.is_dir() else path.parent
        catalog = self._primary()
        self._refuse_hipscat(catalog)
        about = properties(catalog / "hats.properties", catalog / "properties")
        kind = about.get("dataproduct_type", "object")
        if kind in NO_SURVEY:
            whose = about.get("hats_primary_table_url")
            raise ReadError(
                f"{catalog}: is a HATS {kind} and no catalogue of objects"
                + (
                    f" (dataproduct_type = {kind}); it belongs to {whose}: name that folder, or the collection"
                    if whose
                    else ""
                )
            )
        suffix = about.get("hats_npix_suffix", ".parquet")
        self._files: list[Path] = []
        for order, pixel in _pixels(catalog):
            stem = catalog / "dataset" / f"Norder={order}" / f"Dir={pixel // 10_000 * 10_000}" / f"Npix={pixel}"
            self._files += sorted(stem.glob("*.parquet")) if suffix == "/" else [stem.with_name(stem.name + suffix)]
        if not self._files:
            raise ReadError(f"{catalog}: partition_info.csv names no partition")
        self._groups: list[tuple[Path, int]] = []
        self._starts = [0]
        for file in self._files:
            if not file.is_file():
                raise ReadError(f"{file}: missing, though {catalog / 'partition_info.csv'} names its pixel")
            metadata = pq.read_metadata(file)
            for number in range(metadata.num_row_groups):
                self._groups.append((file, number))
                self._starts.append(self._starts[-1] + metadata.row_group(number).num_rows)
        describe_schema(self, pq.read_schema(self._files[0]))
        self.rows: int = self._starts[-1]

    def _primary(self) -> Path:
        collection = self.path / "collection.properties"
        if not collection.is_file():
            return self.path
        primary = properties(collection).get("hats_primary_table_url")
        if primary is None:
            raise ReadError(f"{collection}: has no hats_primary_table_url, as a HATS collection must")
        return self.path / primary

    def _refuse_hipscat(self, catalog: Path) -> None:
        if (catalog / "catalog_info.json").is_file() and not (catalog / "hats.properties").is_file():
            raise ReadError(
                f"{catalog}: is a HiPSCat catalogue (catalog_info.json), the predecessor of HATS; give its Parquet files as files: "
                f"{catalog.name}/Norder=*/Dir=*/*.parquet, with format: parquet"
            )
        if not any((catalog / name).is_file() for name in ("hats.properties", "properties")):
            inside = sorted({p.suffix for p in catalog.iterdir() if p.is_file() and p.suffix})
            raise ReadError(
                f"{catalog}: is a folder and no HATS catalogue: it has no hats.properties; "
                + (f"give the files in it as {catalog.name}/*{inside[0]}" if inside else "name the files below it")
            )

    def spans(self, rows: int) -> list[Span]:
        """Runs of row groups of about `rows` rows."""
        return group_spans(self._starts, rows)

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        first, last = span or (0, self.rows)
        wanted: dict[Path, list[int]] = {}
        for (file, number), start in zip(self._groups, self._starts, strict=False):
            if first <= start < last:
                wanted.setdefault(file, []).append(number)
        for file, groups in wanted.items():
            with pq.ParquetFile(file, pre_buffer=False) as handle:
                yield from handle.iter_batches(
                    batch_size=batch_rows, row_groups=groups, columns=columns, use_threads=False
                )


def properties(*paths: Path) -> dict[str, str]:
    """The `key=value` lines of the first of these files that exists."""
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise ReadError(f"{paths[0]}: missing; the folder is no HATS catalogue")
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}


def _pixels(catalog: Path) -> list[tuple[int, int]]:
    path = catalog / "partition_info.csv"
    if not path.is_file():
        raise ReadError(f"{path}: missing; the folder is no HATS catalogue")
    with open(path, newline="", encoding="utf-8") as handle:
        return [(int(row["Norder"]), int(row["Npix"])) for row in csv.DictReader(handle, skipinitialspace=True)]


def example(table: pa.Table, folder: Path) -> Path:
    """Write a small table in this format, for the tests that all readers share; returns the folder: a collection, whose margin must not be read."""
    index = healpix(table.column("ra").to_numpy(), table.column("dec").to_numpy())
    rows = table.add_column(0, HEALPIX_COLUMN, pa.array(index))
    pixels = index >> 58
    catalog = folder / "collection"
    for name, chosen in (("main", pixels >= 0), ("margin", pixels == 3)):
        found = [Partition(0, int(pixel)) for pixel in np.unique(pixels[chosen])]
        for partition in found:
            part = rows.filter(pa.array(pixels == partition.pixel))
            with hats.write_partition(catalog / name, partition, rows.schema) as writer:
                writer.write(part.sort_by(HEALPIX_COLUMN))
        hats.finish(catalog / name, name, found)
    (catalog / "collection.properties").write_text(
        "#HATS Collection\nobs_collection=test\nhats_primary_table_url=main\nall_margins=margin\n"
    )
    return catalog
