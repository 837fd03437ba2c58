"""A shard of the survey cleaned in parallel, and the clean catalogue finished once all shards are there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zmill.catalog import hats
from zmill.catalog.files import read_json, write_json
from zmill.catalog.hats import CatalogError, Partition
from zmill.clean.impute import MeanColors
from zmill.clean.partition import Recipe, clean_partition, tally, whole_already
from zmill.config import Survey
from zmill.job import Progress, log

if TYPE_CHECKING:
    from distributed import Client

SMALL_ROWS = 3_000_000
"""Below this a shard is done sooner than a cluster starts."""
CONNECT = "30s"
"""How long a running cluster is waited for."""


def recipe(survey: Survey, impute: str, imputation: Path) -> Recipe:
    """What is done to every row of a survey.

    Parameters
    ----------
    impute : `clean.impute`.
    imputation : `imputation.json`.
    """
    colors = MeanColors.from_json(read_json(imputation)) if impute == "mean_color" else None
    return Recipe(tuple(survey.bands), survey.cuts, colors)


@contextmanager
def local_client(workers: int, memory_mb: int, folder: str | Path | None) -> Iterator[Client]:
    """A Dask cluster of this machine: processes of one thread each, gone when the block ends.

    The program that calls it must guard its own work by `if __name__ == "__main__"`: workers import it again.

    Parameters
    ----------
    memory_mb : of all workers together.
    folder : for what workers spill, emptied at the end; the system's own where None.
    """
    from distributed import Client, LocalCluster  # takes seconds: only where a cluster is wanted

    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "ARROW_IO_THREADS": "1"}
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="dask-") as local,
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=f"{memory_mb / workers:.0f}MB",
            processes=True,
            dashboard_address=None,
            local_directory=local,
            env=one_thread,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def cluster(workers: int, memory_mb: int, folder: str | Path | None) -> Iterator[Client]:
    """The running Dask cluster whose scheduler Dask's own setting names, else `local_client`.

    Raises
    ------
    CatalogError
        Where no scheduler answers there.
    """
    address = scheduler_address()
    if not address:
        with local_client(workers, memory_mb, folder) as client:
            yield client
        return
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT)
    except (OSError, ValueError) as error:
        raise CatalogError(
            f"no Dask scheduler answers at {address} ({error}): start it, correct DASK_SCHEDULER_ADDRESS, or unset it "
            "for a cluster of this machine"
        ) from error
    with client:
        log.info("using the Dask cluster at %s", address)
        yield client


def scheduler_address() -> str | None:
    """Dask's setting `scheduler-address`: the environment's DASK_SCHEDULER_ADDRESS or a file of Dask's configuration."""
    import dask.config

    found: str | None = dask.config.get("scheduler-address", None)
    return found


def clean_shard(
    survey: Path,
    clean: Path,
    partitions: Sequence[Partition],
    recipe: Recipe,
    progress: Path,
    workers: int = 1,
    memory_mb: int = 2000,
    tmpdir: str | Path | None = None,
    client: Client | None = None,
) -> dict[str, Any]:
    """Clean the partitions of a shard, each on its own, and write `progress` last.

    Partitions that are whole already are kept, so a killed shard goes on where it was.

    Parameters
    ----------
    client : of a running Dask cluster; without one that of `cluster`, or none where the work is small.

    Raises
    ------
    CatalogError
        Naming every partition that could not be cleaned; the others are whole.
    """
    kept = {partition: whole_already(survey, clean, partition, recipe) for partition in partitions}
    counts = {partition: found for partition, found in kept.items() if found is not None}
    todo = [partition for partition in partitions if partition not in counts]
    if counts:
        log.info("%d of %d partitions are whole already", len(counts), len(partitions))
    rows = sum(hats.sidecar(survey, partition)["rows"] for partition in todo)
    small = not todo or (not scheduler_address() and (workers == 1 or len(todo) < 2 or rows < SMALL_ROWS))
    for partition in todo:
        hats.remove_unfinished(clean, partition)
    said = Progress("clean", rows)
    failures: dict[Partition, BaseException] = {}
    with nullcontext(client) if client or small else cluster(min(workers, len(todo)), memory_mb, tmpdir) as pool:
        for partition, result in _results(survey, clean, todo, recipe, pool):
            if isinstance(result, BaseException):
                log.error("%s: %s", partition.name, result)
                failures[partition] = result
            else:
                counts[partition] = result
                said.add(result["rows"])
    said.end()
    if failures:
        shown = "\n".join(f"  {partition.name}: {failures[partition]}" for partition in sorted(failures)[:20])
        raise CatalogError(
            f"{len(failures)} of {len(partitions)} partitions could not be cleaned, the others are done:\n{shown}"
            + ("" if len(failures) <= 20 else f"\n  … and {len(failures) - 20} more")
        )
    total = tally(list(counts.values()), recipe)
    _tell(total)
    # The hash tells later stages of rows that changed where the counts did not.
    write_json(progress, {"partitions": len(partitions), "xxh3_128": hats.content_hash(clean, partitions), **total})
    return total


def finish_catalog(survey: Path, clean: Path, name: str) -> int:
    """Make the clean partitions a HATS catalogue with the rows of the survey.

    Raises
    ------
    CatalogError
        Where row counts differ or a partition is missing.
    """
    partitions = hats.partitions(survey)
    for partition in partitions:
        made, given = hats.sidecar(clean, partition), hats.sidecar(survey, partition)
        if (made["rows"], made["input"]) != (given["rows"], given["xxh3_128"]):
            raise CatalogError(
                f"{partition.file(clean)}: {made['rows']:,} rows, made from another input than {partition.file(survey)} "
                f"({given['rows']:,} rows): run again, so that its shard is cleaned anew"
            )
    return hats.finish(clean, name, partitions)


def _results(
    survey: Path, clean: Path, todo: Sequence[Partition], recipe: Recipe, client: Client | None
) -> Iterator[tuple[Partition, dict[str, Any] | BaseException]]:
    """Each partition with its counts or with what went wrong, as they come."""
    if client is None:
        for partition in todo:
            yield partition, _attempt(survey, clean, partition, recipe)
        return
    from distributed import as_completed

    futures = {
        client.submit(clean_partition, survey, clean, partition, recipe, pure=False): partition for partition in todo
    }
    for future in as_completed(futures):
        yield futures[future], future.exception() or future.result()


def _attempt(survey: Path, clean: Path, partition: Partition, recipe: Recipe) -> dict[str, Any] | BaseException:
    try:
        return clean_partition(survey, clean, partition, recipe)
    except Exception as error:
        return error  # told with the others once the rest of the shard is done


def _tell(total: dict[str, Any]) -> None:
    for band, count in total["imputed"].items():
        left = total["missing"][band]
        log.info("%s: %s rows imputed%s", band, f"{count:,}", f", {left:,} stay without a magnitude" if left else "")
    for name, count in total["cut"].items():
        log.info("cut %s: %s rows fail", name, f"{count:,}")
    if total["no_band"]:
        log.warning("%s rows have no magnitude in any band", f"{total['no_band']:,}")
