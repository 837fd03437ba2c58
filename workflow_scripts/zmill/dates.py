"""Dates: when something is to be done again, and those of files where clocks disagree.

Snakemake does a job again where an input is younger than its outputs. Once a job has ended, it dates the outputs by the clock of the
machine that it runs on itself, and fails the job if one of its inputs is dated later.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from zmill.catalog.files import read_json

LATER = 1_000_000
"""Nanoseconds by which an output is younger than its script at least: dates that are equal mean that the script changed."""


SLACK = timedelta(days=1)
"""A date that is further ahead than this is of a clock that was wrong."""


def period(state: Path) -> int:
    """Number of the period that it is: one more than `state` says once the time is over that it says.

    It is a parameter of the rule whose job writes `state`, with this number, so that Snakemake sees the end of a period without
    a job, and the job does not run again because of what it wrote.

    Parameters
    ----------
    state : JSON with `period`, the number, and what `term` gives; none before the first time.
    """
    known = read_json(state) if state.is_file() else {}
    now, number = datetime.now(UTC), int(known.get("period", 0))
    if not known.get("until"):
        return number
    over = now >= datetime.fromisoformat(known["until"]) or now < datetime.fromisoformat(known["when"]) - SLACK
    return number + over


def term(when: datetime | None, days: float | None) -> dict[str, str | None]:
    """From when to when something holds, as `period` reads it: `when`, and `until`, which is None without a number of days."""
    until = when + timedelta(days=days) if when and days is not None else None
    return {
        "when": when.isoformat(timespec="seconds") if when else None,
        "until": until.isoformat(timespec="seconds") if until else None,
    }


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
