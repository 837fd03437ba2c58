"""Every function of Snakemake that zmill replaces.

Each public function below makes one patch, once for the process, however often it is called. A patch that only helps is left out where
Snakemake has not what it replaces: a warning says so, and Snakemake does as it does by itself. The patch by which records decide which
jobs run is not left out: Snakemake's own notes would keep old results without a word, so that the run is refused instead.

All of them were seen to work with the version `SEEN`; tests/workflow/test_patches.py says whether they still do.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import wraps
from importlib.metadata import version
from inspect import getattr_static
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import snakemake.api  # noqa: F401  imports the modules of Snakemake in an order that their circle of imports allows
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from zmill.workflow import planning

SEEN = "9.27.1"
"""Version of Snakemake with which every patch was seen to help."""

OBJECTS = 5_000_000
"""New objects after which Python looks for garbage again; its own default is 700."""

DECISION = (
    *(f"snakemake.dag:DAG.{name}" for name in ("init", "update_needrun", "toposorted", "finished", "reason")),
    *(f"snakemake.jobs:Reason.{name}" for name in ("clear", "get_names", "updated_input_run", "finished")),
    *(f"snakemake.jobs:Reason.{name}" for name in ("forced", "nooutput", "noio")),
)
"""What `decide_by_records` replaces or calls."""
STATE = (
    *(
        "_needrun",
        "_dependencies",
        "_checkpoint_jobs",
        "_n_until_ready",
        "_ready_jobs",
        "_running",
        "_finished",
        "_reason",
        "_len",
    ),
    *("rules_allowed_for_needrun", "omitforce", "forcerules", "forcefiles", "targetrules", "targetfiles"),
)
"""Attributes of a `DAG` in which Snakemake keeps its decision, or that `zmill.workflow.planning` reads."""

Function = Callable[..., Awaitable[None]]
_warned: set[str] = set()


def collect_garbage_less_often() -> None:
    """Let Python look for garbage once in `OBJECTS` new objects.

    Jobs are kept until the end of the run: to look through all of them again and again took a sixth of a dry run of 4,000 jobs.
    """
    gc.set_threshold(OBJECTS)


def allow_outputs_older_than_inputs(warn: bool = True) -> None:
    """Let zmill's own jobs end well where an input has a later time of change than an output.

    Records compare contents. Snakemake would fail the job, for which a clock that is wrong, or a copy with the times of another machine,
    is enough. No option of Snakemake turns this off.

    Parameters
    ----------
    warn : whether to warn where the patch cannot be made.
    """

    def wrap(original: Function) -> Function:
        async def check_output_mtime(self: Any, job: Any, *arguments: Any, **options: Any) -> None:
            if not planning.is_ours(job):
                await original(self, job, *arguments, **options)

        return check_output_mtime

    _replace(
        "snakemake.dag:DAG.check_output_mtime",
        wrap,
        "jobs may fail whose inputs have a later time of change than their outputs",
        warn,
    )


def decide_by_records(results: str, mend: Callable[[Path], list[str]]) -> None:
    """Let records decide which jobs run that make the results in a folder, and lock the folder when a run begins.

    Parameters
    ----------
    results : folder of a survey's results.
    mend : called with the folder once a run holds its lock; it sets damaged files aside, so that jobs find them missing, and
        gives sentences for the user.

    Raises
    ------
    WorkflowError
        If this version of Snakemake has not what is replaced.
    """
    absent = [name for name in DECISION if not _exists(name)]
    if absent:
        raise _refused(absent)
    planning.folders[results] = mend

    def wrap_init(original: Function) -> Function:
        async def init(self: Any, *arguments: Any, **options: Any) -> None:
            if absent := [f"DAG.{name}" for name in STATE if not hasattr(self, name)]:
                raise _refused(absent)
            planning.begin(self)
            await original(self, *arguments, **options)

        return init

    def wrap_update(original: Function) -> Function:
        async def update_needrun(self: Any, create_inventory: bool = False) -> None:
            if not self.workflow.is_main_process:
                await original(self, create_inventory)
                return
            if self._reason.default_factory is not planning.Due:
                self._reason = defaultdict(planning.Due)
                planning.warn_of_older_versions()
            if planning.foreign(self):
                await original(self, create_inventory)
            elif create_inventory:
                await self.workflow.iocache.mtime_inventory(self.jobs)
            planning.plan(self)

        return update_needrun

    _replace("snakemake.dag:DAG.init", wrap_init)
    _replace("snakemake.dag:DAG.update_needrun", wrap_update)


def _exists(name: str) -> bool:
    """Whether anything has this name, `module:attribute.attribute`."""
    owner, _, last = name.rpartition(".")
    try:
        getattr_static(resolve_name(owner), last)  # a property of a class has no value to get
    except (ImportError, AttributeError):
        return False
    return True


def _replace(name: str, wrap: Callable[[Any], Any], without: str = "", warn: bool = True) -> None:
    """Replace a function by `wrap` of it, once; where it is absent, warn of what happens `without`."""
    if not _exists(name):
        if warn and name not in _warned:
            _warned.add(name)
            logger.warning(
                f"Snakemake {version('snakemake')} has no {name.replace(':', '.')}, which zmill replaces: {without}. "
                f"zmill was seen to work with Snakemake {SEEN}."
            )
        return
    original = resolve_name(name)
    if not hasattr(original, "zmill"):
        replacement: Any = wraps(original)(wrap(original))
        replacement.zmill = True
        owner, _, last = name.rpartition(".")
        setattr(resolve_name(owner), last, replacement)


def _refused(absent: list[str]) -> WorkflowError:
    return WorkflowError(
        f"zmill cannot run with Snakemake {version('snakemake')}, which lacks {', '.join(name.replace(':', '.') for name in absent)}: "
        "zmill could not decide by its records which jobs are to run, and results could stay that are out of date. "
        f"Install Snakemake {SEEN}: pip install snakemake=={SEEN}"
    )
