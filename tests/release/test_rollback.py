"""The way back."""

from __future__ import annotations

from pathlib import Path

import pytest
from release_sky import SKY, fill

from zmill.catalog.files import read_json
from zmill.release import store
from zmill.release.publish import publish
from zmill.release.rollback import resume, rollback
from zmill.release.store import ReleaseError


def release(results: Path, version: float) -> str:
    return publish(fill(results, version), 5, {}, lambda line: None)["release"]


def test_rollback_to_the_previous_release_and_resume(results: Path, messages) -> None:
    lines, log = messages
    first, second, third = (release(results, version) for version in (1, 2, 3))
    assert rollback(results, log)["release"] == second
    assert store.resolve(results) == store.folder(results, second)
    assert read_json(results / "release.json")["release"] == second
    assert rollback(results, log)["release"] == first
    assert third in {record["release"] for record in store.published(results)}
    resume(results, log)
    assert release(results, 3) == third, "the same content is current again, from the folder that is still there"
    assert first in lines[1]


@pytest.mark.parametrize("content", [2, 3])
def test_after_a_rollback_nothing_is_published_until_it_is_resumed(results: Path, messages, content: float) -> None:
    """Neither what was rolled back from nor anything that came of it."""
    lines, log = messages
    first, second = release(results, 1), release(results, 2)
    rollback(results, log)
    for _ in range(2):
        with pytest.raises(
            ReleaseError, match=f"not published: {second} was rolled back to {first} .* snakemake resume"
        ):
            release(results, content)
        assert store.current(results)["release"] == first == read_json(results / "release.json")["release"]
    assert release(results, 1) == first, "what is current may stay so"
    resume(results, log)
    again = release(results, content)
    assert store.current(results)["release"] == again and (again == second) == (content == 2)
    resume(results, log)
    assert "published again" in lines[-2] and lines[-1] == "nothing was held back"


def test_after_a_rollback_the_next_release_goes_back_to_what_was_current(results: Path) -> None:
    first, _ = release(results, 1), release(results, 2)
    rollback(results, lambda line: None)
    resume(results, lambda line: None)
    release(results, 3)
    assert rollback(results, lambda line: None)["release"] == first


def test_nothing_to_go_back_to(results: Path) -> None:
    with pytest.raises(ReleaseError, match="nothing was released yet"):
        rollback(results, lambda line: None)
    only = release(results, 1)
    with pytest.raises(ReleaseError, match="oldest release"):
        rollback(results, lambda line: None)
    assert store.current(results)["release"] == only


def test_a_damaged_release_does_not_become_current(results: Path) -> None:
    first, second = release(results, 1), release(results, 2)
    SKY[0].file(store.folder(results, first) / "photoz").unlink()
    with pytest.raises(ReleaseError, match=f"{SKY[0].name}: missing"):
        rollback(results, lambda line: None)
    assert store.current(results)["release"] == second
