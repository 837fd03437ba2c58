"""The fault suite counts what it tried and what zmill survived, by class of fault, and prints both at the end of pytest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

Tally = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """`with tally("kills"): …` counts one fault of a class as tried, and as survived where the block raises nothing."""
    counted = request.node.user_properties

    @contextmanager
    def count(kind: str) -> Iterator[None]:
        counted.append(("tried", kind))
        yield
        counted.append(("survived", kind))

    return count


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table; the counts come with the reports of the tests, from processes of pytest-xdist, too."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    counted = Counter(entry for report in reports for entry in report.user_properties)
    kinds = sorted({kind for what, kind in counted if what == "tried"})
    if kinds:
        terminalreporter.section("faults")
        terminalreporter.write_line(f"{'class':40s}{'tried':>8s}{'survived':>10s}")
        for kind in kinds:
            terminalreporter.write_line(f"{kind:40s}{counted['tried', kind]:8d}{counted['survived', kind]:10d}")
