"""Snakemake's decision of which jobs are due, made from zmill's records (`zmill.workflow.records`) instead of Snakemake's own notes.

Snakemake keeps what it knows of earlier runs in `.snakemake` of the working folder and compares times of change. Both may be lost or
wrong: another clone, a cleaned cache, a copy without times, a wrong clock. Here a job is due where its record says so, where a job
whose outputs it reads is due (unless these are `ancient`), or where it is forced. Jobs of other workflows that use zmill
as a module are left to Snakemake. `zmill.workflow.patches` puts this into Snakemake's place.

Before it decides, a run takes the lock of the results, and holds it for as long as its process lives.
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

BESIDE = {"verify", "rollback", "resume"}
"""Targets that may run beside a night: releases have a lock of their own."""
SHOWN = 5
"""Names that a reason lists at most."""
folders: dict[str, Callable[[Path], list[str]]] = {}
"""Folders of results that this process makes -> what a run does there before it decides."""


Reason: Any = getattr(jobs, "Reason", object)


class Due(Reason):
    """Why a job runs: what its record says, beside Snakemake's own reasons."""

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
        said = [
            what + (": " if names else "") + ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
            for what, names in self.changes
        ]
        return "; ".join([*said, *filter(None, [super().__str__()])])


def begin(dag: Any) -> None:
    """Where jobs are to run: take the locks of the results, forget the errors of earlier runs and mend what is damaged."""
    if not executes(dag.workflow) or _beside(dag):
        return
    dag.zmill_locks = [_lock(folder) for folder in sorted(folders)]
    for folder, mend in folders.items():
        forget(Path(folder, "logs"))
        for sentence in mend(Path(folder)):
            logger.warning(sentence)


def is_ours(job: Any) -> bool:
    """Whether a job of Snakemake's has a record."""
    folder, name = os.path.split(job.rule.script or "")
    return bool(job.output and job.log) and folder == "../workflow_scripts" and (records.SCRIPTS / name).is_file()


def due(job: Any) -> list[tuple[str, list[str]]]:
    """What a job's record says (`zmill.workflow.records.changes`)."""
    outputs = [str(path) for path in job.output]
    counted = [str(path) for path in job.input if not path.is_ancient]
    order_only = [str(path) for path in job.input if path.is_ancient]
    home = records.Home.of(str(job.log[0]), outputs)
    return records.changes(home, outputs, counted, dict(job.params.items()), order_only)


def foreign(dag: Any) -> list[Any]:
    """Jobs with outputs that have no records."""
    return [job for job in dag.jobs if job.output and not is_ours(job)]


def plan(dag: Any) -> None:
    """Fill what Snakemake reads of its decision: which jobs are due, why, and how many others each waits for."""
    needrun, dependencies = dag._needrun, dag._dependencies
    needrun.clear()
    dag._checkpoint_jobs.clear()
    dag._n_until_ready.clear()
    dag._ready_jobs.clear()
    for level in dag.toposorted():
        for job in level:
            if dag.finished(job):
                continue
            if job in dag._running or _judge(dag, job):
                needrun.add(job)
    for job in needrun:
        dag._n_until_ready[job] = sum(other in needrun for other in dependencies[job])
        if job.is_checkpoint:
            dag._checkpoint_jobs.add(job)
    dag._len = len(dag._finished | needrun)


def _judge(dag: Any, job: Any) -> bool:
    """Whether a job is due, all that it depends on being judged; its reason is noted."""
    reason = dag.reason(job)
    if job.output and not is_ours(job):
        reason.updated_input_run.clear()  # the rest is Snakemake's judgement of a foreign job
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
        # Which files such a job reads is known once the checkpoint has run; it is judged anew then.
        if not any(file.flags.get("checkpoint_target") for file in job.input):
            reason.changes = due(job)
    elif not job.output and job.rule.norun:
        reason.updated_input_run.update(file for file in job.input if not Path(file).exists())
    elif not job.output:
        reason.nooutput, reason.noio = bool(job.input), not job.input
    return bool(reason)


def executes(workflow: Any) -> bool:
    """Whether this process of Snakemake is to run jobs, and not to show what it would do."""
    return workflow.is_main_process and workflow.executor_plugin is not None and not workflow.dryrun


def _beside(dag: Any) -> bool:
    """Whether nothing is asked for that needs the lock."""
    names = {rule.name for rule in dag.targetrules or ()}
    return bool(names) and names <= BESIDE and not dag.targetfiles


def _lock(results: str) -> Any:
    try:
        return hold(Path(results, ".lock"))
    except Locked as holder:
        raise WorkflowError(f"{results}: another run is under way (process {holder}): wait for its end") from None
    except NoLocks as error:
        raise WorkflowError(str(error)) from None


def warn_of_older_versions() -> None:
    for folder in sorted(folders):
        if Path(folder, "sample", "sample.json").exists() and not Path(folder, "progress", "records").is_dir():
            logger.warning(
                f"{folder}: made by a version of zmill that kept no records of what each result was made from: "
                "everything is made again"
            )
