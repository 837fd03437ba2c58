"""Parallel cleaning of a shard of the survey, and completion of the clean catalogue after all shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from zmill.catalog import hats
from zmill.catalog.files import write_json
from zmill.catalog.hats import CatalogError, Partition
from zmill.clean.partition import Recipe, clean_partition, complete_counts, learned_of, tally
from zmill.inputs.registry import of_survey
from zmill.survey_definition import Survey
from zmill.workflow.job import Progress, log
from zmill.workflow.processes import Run, workers

SMALL_ROWS = 3_000_000
"""Shards with fewer rows are cleaned in one process, which is faster than starting several."""
CONNECT = "30s"
"""Time limit for the connection to a running cluster."""


def recipe(survey: Survey, impute: str, imputation: Path) -> Recipe:
    """The recipe of a survey.

    Parameters
    ----------
    impute : `clean.impute`.
    imputation : `imputation.json`.
    """
    return Recipe(tuple(of_survey(survey)), survey.cuts, learned_of(impute, imputation))


@contextmanager
def running_cluster(address: str) -> Iterator[Run]:
    """The Dask cluster whose scheduler has this address; it is not stopped at the end.

    Raises
    ------
    CatalogError
        Where no scheduler answers there.
    """
    from distributed import Client, as_completed  # takes seconds

    try:
        client = Client(address, timeout=CONNECT)
    except (OSError, ValueError) as error:
        raise CatalogError(
            f"no Dask scheduler answers at {address} ({error}): start it, correct DASK_SCHEDULER_ADDRESS, or unset it "
            "for processes of this machine"
        ) from error

    def run(tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        futures = {client.submit(*task, pure=False): index for index, task in enumerate(tasks)}
        for future in as_completed(futures):
            yield futures[future], future.exception() or future.result()

    with client:
        log.info("using the Dask cluster at %s", address)
        yield run


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
    threads: int = 1,
    run: Run | None = None,
) -> dict[str, Any]:
    """Clean the partitions of a shard independently, and write `progress` last.

    Complete partitions are kept, so that a killed shard continues where it stopped.

    Parameters
    ----------
    threads : parallel processes, unless the work is small or Dask's own setting names a running cluster.
    run : an executor that is running already.

    Raises
    ------
    CatalogError
        The message names every partition that could not be cleaned; the others are complete.
    """
    kept = {partition: complete_counts(survey, clean, partition, recipe) for partition in partitions}
    counts = {partition: found for partition, found in kept.items() if found is not None}
    todo = [partition for partition in partitions if partition not in counts]
    if counts:
        log.info("%d of %d partitions are complete already", len(counts), len(partitions))
    rows = sum(hats.sidecar(survey, partition)["rows"] for partition in todo)
    for partition in todo:
        hats.remove_unfinished(clean, partition)
    address = scheduler_address() if todo else None
    count = 1 if rows < SMALL_ROWS else max(1, min(threads, len(todo)))
    progress_log = Progress("clean", rows)
    failures: dict[Partition, BaseException] = {}
    tasks = [(_attempt, survey, clean, partition, recipe) for partition in todo]
    with nullcontext(run) if run else running_cluster(address) if address else workers(count) as results:
        for index, result in results(tasks):
            partition = todo[index]
            if isinstance(result, BaseException):
                log.error("%s: %s", partition.name, result)
                failures[partition] = result
            else:
                counts[partition] = result
                progress_log.add(result["rows"])
    progress_log.end()
    if failures:
        shown = "\n".join(f"  {partition.name}: {failures[partition]}" for partition in sorted(failures)[:20])
        raise CatalogError(
            f"{len(failures)} of {len(partitions)} partitions could not be cleaned, the others are done:\n{shown}"
            + ("" if len(failures) <= 20 else f"\n  … and {len(failures) - 20} more")
        )
    total = tally(list(counts.values()))
    _log_counts(total, recipe)
    # By the hash, later stages notice changed rows where the counts are equal.
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
                f"({given['rows']:,} rows): run again, so that its shard is cleaned again"
            )
    return hats.finish(clean, name, partitions)


def _attempt(survey: Path, clean: Path, partition: Partition, recipe: Recipe) -> dict[str, Any] | BaseException:
    try:
        return clean_partition(survey, clean, partition, recipe)
    except Exception as error:
        return error  # reported with the others after the rest of the shard


def _log_counts(total: dict[str, Any], recipe: Recipe) -> None:
    for kind in recipe.inputs:
        kind.log_counts(total)
    for name, count in total["cut"].items():
        log.info("cut %s: %s rows fail", name, f"{count:,}")
