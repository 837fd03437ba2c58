"""Threads sleep while they wait for one another, in every job, unless the user wants it otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zmill.workflow.waiting import PASSIVE, sleep_while_waiting

SNAKEFILE = Path(__file__).resolve().parents[2] / "Snakefile"


def test_it_is_set_for_this_process_and_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PASSIVE:
        monkeypatch.delenv(name, raising=False)
    sleep_while_waiting()
    assert {name: os.environ[name] for name in PASSIVE} == PASSIVE


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_the_snakefile_sets_it_before_models_are_loaded() -> None:
    lines = SNAKEFILE.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line == "sleep_while_waiting()")
    assert first < next(number for number, line in enumerate(lines) if "zmill.check" in line)
