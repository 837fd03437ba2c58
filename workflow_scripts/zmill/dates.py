"""Dates of files where clocks disagree: one that went back, a node's that is ahead, files that come from the future.

Snakemake does a job again where an input is younger than its outputs. Once a job has ended, it dates the outputs by the clock of the
machine that it runs on itself, and fails the job if one of its inputs is dated later.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

LATER = 1_000_000
"""Nanoseconds by which an output is younger than its script at least: dates that are equal mean that the script changed."""


UNSEEN = {"dataset", "releases"}
"""Folders of results whose files Snakemake does not look at."""


def back_to_now(results: Path, others: Iterable[Path] = ()) -> int:
    """Date as of now whatever is dated later, in the results of a survey and of some other files; the number of these.

    What a run makes is then younger than all that earlier runs have made. Which of two files is the older one stays as it was,
    or they are of the same age.
    """
    now = time.time_ns()
    ahead = [path for path in (*_files(results), *others) if (date := _date(path)) is not None and date > now]
    for path in ahead:
        os.utime(path, ns=(now, now))
    return len(ahead)


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in UNSEEN]
        yield from (Path(place, name) for name in names)


def follow_inputs(dag: Any, scripts: Path) -> None:
    """From now on, Snakemake dates no output earlier than its newest input, whatever the clock says.

    Parameters
    ----------
    dag : Snakemake's class of that name, whose method that holds dates against each other is extended.
    scripts : the folder of the rules' scripts, each named for its rule: no output is dated earlier than its script either.
    """
    check = dag.check_output_mtime

    async def settle_and_check(self: Any, job: Any, outputs: list[Any]) -> None:
        settle(job.input, scripts / f"{job.rule.name}.py", outputs)
        await check(self, job, outputs)

    dag.check_output_mtime = settle_and_check


def settle(inputs: Iterable[str], script: Path, outputs: Iterable[str]) -> None:
    """Date outputs that are older than an input, or no younger than the script, as the newest of these."""
    dates = [date for path in inputs if (date := _date(path)) is not None]
    if (date := _date(script)) is not None:
        dates.append(date + LATER)
    newest = max(dates, default=0)
    for path in outputs:
        date = _date(path)
        if date is not None and date < newest:
            os.utime(path, ns=(newest, newest))


def _date(path: str | Path) -> int | None:
    """Time of change in nanoseconds, of a link that of what it points at if that is later; None where there is nothing."""
    try:
        return max(Path(path).lstat().st_mtime_ns, Path(path).stat().st_mtime_ns)
    except FileNotFoundError:
        return None
