"""Shards: groups of partitions, each the work of one job."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from zmill.catalog.files import atomic_write, check_file
from zmill.catalog.hats import Partition, partitions, sidecar

MOST_SHARDS = 500
"""Approximate upper limit of the number of shards, two jobs each. Snakemake's own run time grows faster than the number of jobs
(docs/performance.md). A larger shard needs no more memory, and a killed job continues where it stopped."""
Shards = dict[int, list[Partition]]
"""Number of a shard -> its partitions."""


def plan(catalog: Path, shard_rows: int, before: Shards | None = None) -> Shards:
    """Group a catalogue's partitions, in the order of the sky, into shards of about `shard_rows` rows.

    Shards are larger where there would be more than `MOST_SHARDS` of them.

    Parameters
    ----------
    before : the previous plan: partitions stay in their shard, and new ones fill the last shard and then further ones,
        so that a change in one shard causes no work in others.
    """
    sizes = {partition: int(sidecar(catalog, partition)["rows"]) for partition in partitions(catalog)}
    most = max(shard_rows, sum(sizes.values()) // MOST_SHARDS)
    shards = {number: [one for one in kept if one in sizes] for number, kept in (before or {}).items()}
    shards = {number: kept for number, kept in shards.items() if kept}
    assigned = {one for kept in shards.values() for one in kept}
    last = max(shards, default=-1)
    count = sum(sizes[one] for one in shards.get(last, []))
    for partition, rows in sizes.items():
        if partition in assigned:
            continue
        if last < 0 or count + rows > most:
            last, count = last + 1, 0
            shards[last] = []
        shards[last].append(partition)
        count += rows
    return shards


def file(catalog: Path, number: int) -> Path:
    """Path of the file that lists a shard's partitions and their content hashes. Each shard has its own file, so that a job
    depends on its own shard alone."""
    return catalog / "shards" / f"{number}.csv"


def write(catalog: Path, shards: Shards, content: Mapping[Partition, str]) -> None:
    """Write a plan, a file for each shard: `Norder,Npix,xxh3_128`. Files that are up to date are not rewritten.

    Parameters
    ----------
    content : hash of each partition.
    """
    wanted = {
        file(catalog, number): "Norder,Npix,xxh3_128\n"
        + "".join(f"{partition.order},{partition.pixel},{content[partition]}\n" for partition in shard)
        for number, shard in shards.items()
    }
    for path, text in wanted.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            with atomic_write(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    for path in (catalog / "shards").glob("[0-9]*.csv"):
        if path not in wanted:
            path.unlink()
            check_file(path).unlink(missing_ok=True)


def numbers(catalog: Path) -> list[int]:
    """Numbers of the shards of a catalogue."""
    return sorted(int(path.stem) for path in (catalog / "shards").glob("[0-9]*.csv"))


def read(path: Path) -> list[Partition]:
    """The partitions of a shard, from its file."""
    with open(path, newline="", encoding="utf-8") as handle:
        return [Partition(int(row["Norder"]), int(row["Npix"])) for row in csv.DictReader(handle)]
