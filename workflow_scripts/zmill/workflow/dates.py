"""Dates: when something is to be done again because time has passed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from zmill.catalog.files import read_json

SLACK = timedelta(days=1)
"""A date that is further ahead than this is of a clock that was wrong."""


def period(state: Path) -> int:
    """Number of the period that it is: one more than `state` says once the time is over that it says.

    It is a parameter of the rule whose job writes `state`, with this number, so that the end of a period is seen without
    a job, and the job does not run again because of what it wrote.

    Parameters
    ----------
    state : JSON with `period`, the number, and what `term` gives; none before the first time. One that is damaged is of another
        period, -1, so that the job runs and writes it anew.
    """
    try:
        known = read_json(state) if state.is_file() else {}
        now, number = datetime.now(UTC), int(known.get("period", 0))
        if not known.get("until"):
            return number
        over = now >= datetime.fromisoformat(known["until"]) or now < datetime.fromisoformat(known["when"]) - SLACK
    except (ValueError, TypeError, KeyError, AttributeError):
        return -1
    return number + over


def term(when: datetime | None, days: float | None) -> dict[str, str | None]:
    """From when to when something holds, as `period` reads it: `when`, and `until`, which is None without a number of days."""
    until = when + timedelta(days=days) if when and days is not None else None
    return {
        "when": when.isoformat(timespec="seconds") if when else None,
        "until": until.isoformat(timespec="seconds") if until else None,
    }
