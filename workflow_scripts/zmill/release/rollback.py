"""Rollback: `current` returns to the previous release, and stays there until publishing is resumed by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zmill.release import store
from zmill.release.store import Record, ReleaseError
from zmill.release.verify import verify


def rollback(results: Path, log: Callable[[str], None], threads: int = 1) -> Record:
    """Switch `current` to the release that was current before this one, once it has been verified.

    The later release stays on the disk, so that it can be inspected. Nothing is published until `resume`, not even by a run
    under way, because the cause of the bad release would probably affect the next one.

    Raises
    ------
    ReleaseError
        Where there is no earlier release, or it is damaged. `current` stays as it was.
    """
    with store.lock(results):
        now = store.current(results)
        if now is None:
            raise ReleaseError(f"{results}: nothing was released yet: there is nothing to go back to")
        earlier = _before(now, store.published(results))
        if earlier is None:
            raise ReleaseError(f"{now['release']} is the oldest release that is kept: there is nothing to go back to")
        verify(store.folder(results, earlier["release"]), earlier, threads)
        store.hold_back(results, now["release"], earlier["release"])
        store.switch(results, earlier["release"])
        store.copy_record(results, earlier["release"])
        log(
            f"current is release {earlier['release']} again; {now['release']} stays on the disk; nothing is published any "
            "more until snakemake resume"
        )
        return earlier


def resume(results: Path, log: Callable[[str], None]) -> None:
    """Let releases be published again after a rollback.

    Raises
    ------
    ReleaseError
        Where another process is changing releases.
    """
    with store.lock(results):
        held = store.held(results)
        store.let_go(results)
        if held:
            log(f"releases are published again; the rollback of {held['since']} held them back")
        else:
            log("nothing was held back")


def _before(now: Record, records: list[Record]) -> Record | None:
    named = [record for record in records if record["release"] == now["previous"]]
    older = [record for record in records if record["sequence"] < now["sequence"]]
    found = named or older[-1:]
    return found[0] if found else None
