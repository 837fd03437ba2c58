"""Shards: groups of partitions, each the work of one job."""

from __future__ import annotations

import csv
from pathlib import Path

from zmill.catalog.files import whole
from zmill.catalog.hats import Partition, partitions, sidecar

MOST_SHARDS = 2000
"""About how many shards there are at most: two jobs each, which Snakemake plans in half a minute."""
Shards = dict[int, list[Partition]]
"""Number of a shard -> its partitions."""


def plan(catalog: Path, shard_rows: int, before: Shards | None = None) -> Shards:
    """Group a catalogue's partitions, in the order of the sky, into shards of about `shard_rows` rows.

    Shards are larger where there would be more than `MOST_SHARDS` of them.

    Parameters
    ----------
    before : the plan that was: partitions stay in their shard, and new ones fill the last shard and then further ones,
        so that what comes or goes in one place leaves the work of all other shards as it is.
    """
    sizes = {partition: int(sidecar(catalog, partition)["rows"]) for partition in partitions(catalog)}
    most = max(shard_rows, sum(sizes.values()) // MOST_SHARDS)
    shards = {number: [one for one in kept if one in sizes] for number, kept in (before or {}).items()}
    shards = {number: kept for number, kept in shards.items() if kept}
    placed = {one for kept in shards.values() for one in kept}
    last = max(shards, default=-1)
    count = sum(sizes[one] for one in shards.get(last, []))
    for partition, rows in sizes.items():
        if partition in placed:
            continue
        if last < 0 or count + rows > most:
            last, count = last + 1, 0
            shards[last] = []
        shards[last].append(partition)
        count += rows
    return shards


def write(path: Path, shards: Shards) -> None:
    """Write a plan as CSV: `shard,Norder,Npix`."""
    with whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["shard", "Norder", "Npix"])
        for number, shard in sorted(shards.items()):
            writer.writerows([number, partition.order, partition.pixel] for partition in shard)


def read(path: Path) -> Shards:
    """Read a plan."""
    shards: Shards = {}
    with open(path, newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            shards.setdefault(int(row["shard"]), []).append(Partition(int(row["Norder"]), int(row["Npix"])))
    return shards
