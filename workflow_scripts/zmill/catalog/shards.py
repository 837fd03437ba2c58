"""Shards: groups of partitions, each the work of one job."""

from __future__ import annotations

import csv
from pathlib import Path

from zmill.catalog.files import whole
from zmill.catalog.hats import Partition, partitions, sidecar


def plan(catalog: Path, shard_rows: int) -> list[list[Partition]]:
    """Group a catalogue's partitions, in the order of the sky, into shards of about `shard_rows` rows."""
    shards: list[list[Partition]] = []
    count = 0
    for partition in partitions(catalog):
        rows = sidecar(catalog, partition)["rows"]
        if not shards or count + rows > shard_rows:
            shards.append([])
            count = 0
        shards[-1].append(partition)
        count += rows
    return shards


def write(path: Path, shards: list[list[Partition]]) -> None:
    """Write a plan as CSV: `shard,Norder,Npix`."""
    with whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["shard", "Norder", "Npix"])
        for number, shard in enumerate(shards):
            writer.writerows([number, partition.order, partition.pixel] for partition in shard)


def read(path: Path) -> dict[int, list[Partition]]:
    """Read a plan: shard number to partitions."""
    shards: dict[int, list[Partition]] = {}
    with open(path, newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            shards.setdefault(int(row["shard"]), []).append(Partition(int(row["Norder"]), int(row["Npix"])))
    return shards
