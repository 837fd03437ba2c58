"""A release that is killed at any of its steps leaves a whole release current, and the next run makes it good."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from release_sky import SKY, fill

from zmill.release import store
from zmill.release.publish import publish
from zmill.release.rollback import rollback
from zmill.release.verify import verify

STEPS = ("link", "chmod", "fsync", "replace", "rename", "symlink", "rmdir", "unlink")
"""Every function of `os` through which a release changes the disk, beside writing into files that have no name yet."""
KILLED = 77


def silent(line: str) -> None:
    """Say nothing."""


def again(results: Path) -> str:
    return publish(results, 2, {}, silent)["release"]


def run(results: str, action: Callable[..., Any], arguments: tuple[Any, ...], dies_at: int) -> None:
    """Publish or roll back in this process and end it before the n-th step, as `kill -9` would."""
    steps = count(1)

    def dying(function: Any) -> Any:
        def step(*given: Any, **named: Any) -> Any:
            if next(steps) == dies_at:
                os._exit(KILLED)
            return function(*given, **named)

        return step

    for name in STEPS:
        setattr(os, name, dying(getattr(os, name)))
    action(Path(results), *arguments)
    os._exit(0)


def killed(results: Path, action: Callable[..., Any], arguments: tuple[Any, ...], dies_at: int) -> bool:
    """Whether the process was killed; it had fewer steps otherwise, and ended well."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["zmill.release.rollback", "zmill.release.publish"])
    process = context.Process(target=run, args=(str(results), action, arguments, dies_at))
    process.start()
    process.join()
    assert process.exitcode in (0, KILLED)
    return process.exitcode == KILLED


def points(results: Path, version: float) -> Path:
    """A survey without PDFs: fewer steps, of the same kinds."""
    fill(results, version, SKY[:2])
    (results / "pdf" / "partition_info.csv").unlink()
    return results


def prepared(tmp_path: Path) -> tuple[Path, list[str]]:
    """Two releases, and a third one that is ready to be made."""
    results = tmp_path / "prepared"
    made = [again(points(results, version)) for version in (1, 2)]
    points(results, 3)
    return results, made


def copy(source: Path, target: Path) -> Path:
    """A copy in which what was linked is linked."""
    subprocess.run(["cp", "-a", source, target], check=True)
    return target


def whole_current(results: Path) -> str:
    record = store.current(results)
    assert record is not None
    verify(store.folder(results, record["release"]), record)
    return record["release"]


def test_killed_at_every_step_of_a_release(tmp_path: Path) -> None:
    origin, (first, second) = prepared(tmp_path)
    third = again(copy(origin, tmp_path / "undisturbed"))
    found = []
    for step in count(1):
        results = copy(origin, tmp_path / f"step{step}")
        died = killed(results, publish, (2, {}, silent), step)
        found.append(whole_current(results))
        assert again(results) == third == whole_current(results)
        assert [record["release"] for record in store.published(results)] == [second, third]
        assert [path.name for path in store.releases(results).glob(".*")] == [".lock"]
        if not died:
            break
    switch = found.index(third)
    assert found == [second] * switch + [third] * (len(found) - switch), "one step makes the old one the new one"
    assert 20 < switch < len(found) - 1, "killed many times before the switch, and behind it"
    assert first not in found


def test_killed_at_every_step_of_a_rollback(tmp_path: Path) -> None:
    origin, (first, second) = prepared(tmp_path)
    found = []
    for step in count(1):
        results = copy(origin, tmp_path / f"step{step}")
        died = killed(results, rollback, (silent,), step)
        found.append(whole_current(results))
        assert found[-1] == second or store.held(results), "what is left behind is not published again"
        if not died:
            break
    assert found[0] == second and found[-1] == first and found == sorted(found, key=[second, first].index)
