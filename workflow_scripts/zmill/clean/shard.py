"""A shard of the survey cleaned in parallel, and the clean catalogue finished once all shards are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from zmill.catalog import hats
from zmill.catalog.files import read_json, write_json
from zmill.catalog.hats import CatalogError, Partition
from zmill.clean.partition import Recipe, clean_partition, tally, whole_already
from zmill.inputs.photometry.impute import MeanColors
from zmill.survey_definition import Survey
from zmill.workflow.job import Progress, log
from zmill.workflow.processes import Run, workers

SMALL_ROWS = 3_000_000
"""Below this a shard is done sooner than processes start."""
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
def running_cluster(address: str) -> Iterator[Run]:
    """The Dask cluster whose scheduler has this address; it is left running.

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
        futures = {client.submit(*task, pure=False): place for place, task in enumerate(tasks)}
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
    """Clean the partitions of a shard, each on its own, and write `progress` last.

    Partitions that are whole already are kept, so a killed shard goes on where it was.

    Parameters
    ----------
    threads : processes that work side by side, unless the work is small or Dask's own setting names a running cluster.
    run : processes that are running already.

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
    for partition in todo:
        hats.remove_unfinished(clean, partition)
    address = scheduler_address() if todo else None
    count = 1 if rows < SMALL_ROWS else max(1, min(threads, len(todo)))
    said = Progress("clean", rows)
    failures: dict[Partition, BaseException] = {}
    tasks = [(_attempt, survey, clean, partition, recipe) for partition in todo]
    with nullcontext(run) if run else running_cluster(address) if address else workers(count) as results:
        for place, result in results(tasks):
            partition = todo[place]
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
