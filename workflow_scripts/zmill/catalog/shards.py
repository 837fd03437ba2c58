"""Shards: groups of partitions, each the work of one job."""

from __future__ import annotations

import csv
from pathlib import Path

from zmill.catalog.files import whole
from zmill.catalog.hats import Partition, partitions, sidecar

MOST_SHARDS = 2000
"""About how many shards there are at most: two jobs each, which Snakemake plans in half a minute."""


def plan(catalog: Path, shard_rows: int) -> list[list[Partition]]:
    """Group a catalogue's partitions, in the order of the sky, into shards of about `shard_rows` rows.

    Shards are larger where there would be more than `MOST_SHARDS` of them.
    """
    sizes = {partition: int(sidecar(catalog, partition)["rows"]) for partition in partitions(catalog)}
    most = max(shard_rows, sum(sizes.values()) // MOST_SHARDS)
    shards: list[list[Partition]] = []
    count = 0
    for partition, rows in sizes.items():
        if not shards or count + rows > most:
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
