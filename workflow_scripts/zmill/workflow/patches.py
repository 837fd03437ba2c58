"""Every function of Snakemake that zmill replaces.

Each public function below applies one patch, once per process. If Snakemake lacks the replaced function, an optional patch is
skipped with a warning, and Snakemake behaves as usual. The patch by which records decide which jobs run is required: without it,
Snakemake's metadata could keep outdated results, so that the run is refused.

All patches work with the version `TESTED`; tests/workflow/test_patches.py verifies each with the installed version.
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

TESTED = "9.27.1"
"""Version of Snakemake with which every patch was tested."""

OBJECTS = 5_000_000
"""Number of new objects after which Python collects garbage; its default is 700."""

DECISION = (
    *(f"snakemake.dag:DAG.{name}" for name in ("init", "update_needrun", "toposorted", "finished", "reason")),
    *(f"snakemake.jobs:Reason.{name}" for name in ("clear", "get_names", "updated_input_run", "finished")),
    *(f"snakemake.jobs:Reason.{name}" for name in ("forced", "nooutput", "noio")),
)
"""Functions and attributes of Snakemake that `plan_by_records` replaces or calls."""
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
"""Attributes of a `DAG` that hold Snakemake's plan, or that `zmill.workflow.planning` reads."""

Function = Callable[..., Awaitable[None]]
_warned: set[str] = set()


def collect_garbage_less_often() -> None:
    """Let Python collect garbage only after `OBJECTS` new objects.

    Jobs exist until the end of the run: repeated scans of all of them took a sixth of a dry run of 4,000 jobs.
    """
    gc.set_threshold(OBJECTS)


def allow_outputs_older_than_inputs(warn: bool = True) -> None:
    """Let zmill's jobs succeed if an input has a later modification time than an output.

    Records compare contents. Snakemake would fail such a job, which can be caused by a wrong clock or by a copy with the times of
    another machine. No option of Snakemake turns this off.

    Parameters
    ----------
    warn : whether to warn if the patch cannot be applied.
    """

    def wrap(original: Function) -> Function:
        async def check_output_mtime(self: Any, job: Any, *arguments: Any, **options: Any) -> None:
            if not planning.is_ours(job):
                await original(self, job, *arguments, **options)

        return check_output_mtime

    _replace(
        "snakemake.dag:DAG.check_output_mtime",
        wrap,
        "jobs may fail if an input has a later modification time than an output",
        warn,
    )


def plan_by_records(results: str, mend: Callable[[Path], list[str]]) -> None:
    """Plan jobs that write to a folder of results by their records, and lock the folder when a run begins.

    Parameters
    ----------
    results : folder of a survey's results.
    mend : function that is called with the folder once a run holds its lock. It sets damaged files aside, so that they count as
        missing, and returns sentences for the user.

    Raises
    ------
    WorkflowError
        If this version of Snakemake lacks a function or attribute that is replaced or called.
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
            if self._reason.default_factory is not planning.RecordReason:
                self._reason = defaultdict(planning.RecordReason)
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
    """Whether an object with the name `module:attribute.attribute` exists."""
    owner, _, last = name.rpartition(".")
    try:
        getattr_static(resolve_name(owner), last)  # a property of a class has no value to get
    except (ImportError, AttributeError):
        return False
    return True


def _replace(name: str, wrap: Callable[[Any], Any], without: str = "", warn: bool = True) -> None:
    """Replace a function by `wrap` of it, once; if it is absent, warn of the consequence `without` it."""
    if not _exists(name):
        if warn and name not in _warned:
            _warned.add(name)
            logger.warning(
                f"Snakemake {version('snakemake')} has no {name.replace(':', '.')}, which zmill replaces: {without}. "
                f"zmill was tested with Snakemake {TESTED}."
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
        "zmill could not plan jobs by its records, and could keep outdated results. "
        f"Install Snakemake {TESTED}: pip install snakemake=={TESTED}"
    )
