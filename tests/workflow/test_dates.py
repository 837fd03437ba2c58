"""When something is to be done again because time has passed, whatever the clock says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from zmill.catalog.files import write_json
from zmill.workflow.dates import period, term


def test_a_period_ends_once_and_is_not_put_off_by_a_wrong_clock(tmp_path: Path) -> None:
    state, now = tmp_path / "state.json", datetime.now(UTC)
    assert period(state) == 0
    for when, days, ended in [
        (now, 30.0, 0),
        (now - timedelta(days=29), 30.0, 0),
        (now - timedelta(days=31), 30.0, 1),
        (now - timedelta(days=31), None, 0),
        (now + timedelta(hours=1), 30.0, 0),
        (now + timedelta(days=400), 30.0, 1),
        (None, 30.0, 0),
    ]:
        write_json(state, {"period": 7, **term(when, days)})
        assert period(state) == 7 + ended, (when, days)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"period": 7, "until": 3}'])
def test_a_damaged_state_is_another_period(tmp_path: Path, damage: str) -> None:
    state = tmp_path / "state.json"
    state.write_text(damage)
    assert period(state) == -1
