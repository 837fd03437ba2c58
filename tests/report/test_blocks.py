"""How numbers are written."""

from __future__ import annotations

import pytest

from zmill.report.blocks import count, duration, number, percent


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.04123, "0.0412"), (12.3456, "12.3"), (1234.5, "1,234"), (-0.5, "−0.500"), (0, "0"), (0.0, "0"), (3e-7, "3.00e−07"),
     (None, "–"), (float("nan"), "–"), (float("inf"), "–")],
)  # fmt: skip
def test_numbers(value: float | None, written: str) -> None:
    assert number(value).text == written


def test_percentages_counts_and_times() -> None:
    assert [percent(share).text for share in (0.0375, 0.676, 1.0, float("nan"))] == ["3.75 %", "67.6 %", "100.0 %", "–"]
    assert percent(None).text == "–"
    assert count(1234567).text == "1,234,567"
    assert [duration(seconds).text for seconds in (3.21, 600, 7200)] == ["3.2 s", "10.0 min", "2.0 h"]
