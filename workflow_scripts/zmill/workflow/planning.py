"""The plan of a run, that is, which jobs run, made from zmill's records (`zmill.workflow.records`) instead of Snakemake's metadata.

Snakemake keeps metadata of earlier runs in `.snakemake` of the working folder and compares modification times. Both may be lost or
wrong, for example in another clone, after a copy without times, or with a wrong clock. With zmill, a job runs if its record does not
match the present files and settings, if a job whose outputs it reads runs (unless these are `ancient`), or if it is forced. Jobs of
other workflows that use zmill as a module are left to Snakemake. `zmill.workflow.patches` replaces Snakemake's decision by this plan.

A run takes the lock of the results before it plans, and holds it until its process ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from snakemake import jobs
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from zmill.catalog.lock import Locked, NoLocks, hold
from zmill.workflow import records
from zmill.workflow.job import forget

CONCURRENT_TARGETS = {"verify", "rollback", "resume"}
"""Targets that may run at the same time as another run, because releases have their own lock."""
SHOWN = 5
"""Largest number of names in the text of a reason."""
folders: dict[str, Callable[[Path], list[str]]] = {}
"""Folders of results of this process, each with the function that repairs it before a run is planned."""


Reason: Any = getattr(jobs, "Reason", object)


class RecordReason(Reason):
    """The reasons why a job runs: differences from its record, in addition to Snakemake's own reasons."""

    __slots__ = ("changes",)

    def clear(self) -> None:
        super().clear()
        self.changes: list[tuple[str, list[str]]] = []

    def __bool__(self) -> bool:
        return super().__bool__() or (bool(self.changes) and not self.finished)

    def get_names(self) -> Iterator[str]:
        yield from (what.lower() for what, _ in self.changes)
        yield from super().get_names()

    def __str__(self) -> str:
        texts = [
            what + (": " if names else "") + ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
            for what, names in self.changes
        ]
        return "; ".join([*texts, *filter(None, [super().__str__()])])


def begin(dag: Any) -> None:
    """If jobs are to run: take the locks of the results, forget the errors of earlier runs and set damaged files aside."""
    if not executes(dag.workflow) or _needs_no_lock(dag):
        return
    dag.zmill_locks = [_lock(folder) for folder in sorted(folders)]
    for folder, mend in folders.items():
        forget(Path(folder, "logs"))
        for sentence in mend(Path(folder)):
            logger.warning(sentence)


def is_ours(job: Any) -> bool:
    """Whether a job of Snakemake is one of zmill's, which have records."""
    folder, name = os.path.split(job.rule.script or "")
    return bool(job.output and job.log) and folder == "../workflow_scripts" and (records.SCRIPTS / name).is_file()


def changes(job: Any) -> list[tuple[str, list[str]]]:
    """Differences between the record of a job and the present files and settings (`zmill.workflow.records.changes`)."""
    outputs = [str(path) for path in job.output]
    counted = [str(path) for path in job.input if not path.is_ancient]
    order_only = [str(path) for path in job.input if path.is_ancient]
    home = records.Home.of(str(job.log[0]), outputs)
    return records.changes(home, outputs, counted, dict(job.params.items()), order_only)


def foreign(dag: Any) -> list[Any]:
    """Jobs with outputs that have no records."""
    return [job for job in dag.jobs if job.output and not is_ours(job)]


def plan(dag: Any) -> None:
    """Plan a run: set the attributes of Snakemake's DAG with the jobs that run, their reasons, and how many others each waits for."""
    needrun, dependencies = dag._needrun, dag._dependencies
    needrun.clear()
    dag._checkpoint_jobs.clear()
    dag._n_until_ready.clear()
    dag._ready_jobs.clear()
    for level in dag.toposorted():
        for job in level:
            if dag.finished(job):
                continue
            if job in dag._running or _runs(dag, job):
                needrun.add(job)
    for job in needrun:
        dag._n_until_ready[job] = sum(other in needrun for other in dependencies[job])
        if job.is_checkpoint:
            dag._checkpoint_jobs.add(job)
    dag._len = len(dag._finished | needrun)


def _runs(dag: Any, job: Any) -> bool:
    """Whether a job runs, after this is known of all jobs that it depends on; sets its reason."""
    reason = dag.reason(job)
    if job.output and not is_ours(job):
        reason.updated_input_run.clear()  # the other reasons are Snakemake's, which decides on foreign jobs
    else:
        reason.clear()
    allowed = dag.rules_allowed_for_needrun
    if allowed and job.rule.name not in allowed:
        return False
    for other, files in dag._dependencies[job].items():
        if other in dag._needrun and not all(file.is_ancient for file in files):
            reason.updated_input_run.update(files)
    if (job not in dag.omitforce and job.rule in dag.forcerules) or not dag.forcefiles.isdisjoint(job.output):
        reason.forced = True
    elif is_ours(job):
        # The input files of such a job are known only after the checkpoint, when Snakemake plans again.
        if not any(file.flags.get("checkpoint_target") for file in job.input):
            reason.changes = changes(job)
    elif not job.output and job.rule.norun:
        reason.updated_input_run.update(file for file in job.input if not Path(file).exists())
    elif not job.output:
        reason.nooutput, reason.noio = bool(job.input), not job.input
    return bool(reason)


def executes(workflow: Any) -> bool:
    """Whether this process of Snakemake is the main process and runs jobs, which it does not in a dry run."""
    return workflow.is_main_process and workflow.executor_plugin is not None and not workflow.dryrun


def _needs_no_lock(dag: Any) -> bool:
    """Whether all requested targets may run at the same time as another run."""
    names = {rule.name for rule in dag.targetrules or ()}
    return bool(names) and names <= CONCURRENT_TARGETS and not dag.targetfiles


def _lock(results: str) -> Any:
    try:
        return hold(Path(results, ".lock"))
    except Locked as holder:
        raise WorkflowError(f"{results}: another run is active (process {holder}): wait until it ends") from None
    except NoLocks as error:
        raise WorkflowError(str(error)) from None


def warn_of_older_versions() -> None:
    for folder in sorted(folders):
        if Path(folder, "sample", "sample.json").exists() and not Path(folder, "progress", "records").is_dir():
            logger.warning(
                f"{folder}: made by a version of zmill without records of the inputs of each result: "
                "all results are computed again"
            )
