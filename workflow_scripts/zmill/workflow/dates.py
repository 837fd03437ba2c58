"""Periods of time after which something is done again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from zmill.catalog.files import read_json

SLACK = timedelta(days=1)
"""A start that is further in the future than this comes from a wrong clock."""


def period(state: Path) -> int:
    """Number of the current period: that of `state`, or one more if the period of `state` has ended.

    It is a parameter of the rule whose job writes `state` with this number. Snakemake therefore sees the end of a period
    without a job, and the job does not run again because of its own output.

    Parameters
    ----------
    state : JSON with `period`, the number, and the result of `term`; it does not exist before the first period. The period of a
        damaged file is -1, so that the job runs and writes it again.
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
    """Start and end of a period, as read by `period`: `when`, and `until`, which is None without a number of days."""
    until = when + timedelta(days=days) if when and days is not None else None
    return {
        "when": when.isoformat(timespec="seconds") if when else None,
        "until": until.isoformat(timespec="seconds") if until else None,
    }
