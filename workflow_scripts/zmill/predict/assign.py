"""Where champions are, and which of them makes the rows of each shard, over several nights if need be.

Snakemake reads this file whenever it starts: torch is imported only where models are compared.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

from zmill.catalog.files import Damaged, read_json

MEANING = 2
"""Number of what the columns of `photoz/` and `pdf/` mean. It is raised when one is added, or computed otherwise: what was predicted
before is then predicted again, so that no catalogue holds both."""


def state(results: Path) -> Path:
    """The record of the champion."""
    return results / "champion" / "champion.json"


def folder(results: Path, hash_: str) -> Path:
    """Where a model is that is champion, or was one."""
    return results / "champion" / hash_


def current(results: Path) -> Path:
    """The folder of the champion."""
    return folder(results, read_json(state(results))["hash"])


def assign(results: Path, shards: Collection[int], budget: float | None, pdf: str) -> dict[int, str]:
    """Hash of the model that each shard is to be predicted by: the champion, or, where a new champion cannot predict
    all of them within the budget, the one that has predicted the shard; it waits for another night.

    Parameters
    ----------
    shards : numbers of the shards. budget : hours of prediction that a new champion may take this night; None for all
        it takes.
    pdf : how PDFs are to be stored (`predict.pdf`); shards that have them otherwise do not wait.
    """
    if not state(results).is_file():
        return {}
    now = read_json(state(results))["hash"]
    assigned = dict.fromkeys(shards, now)
    if budget is None:
        return assigned
    said = {shard: _said(results, shard) for shard in sorted(shards)}
    waiting = [shard for shard, one in said.items() if _may_wait(results, one, now, pdf)]
    rates = sorted(one["predicted"] / one["seconds"] for one in said.values() if one.get("predicted"))
    rate = rates[len(rates) // 2] if rates else math.inf
    left = budget * 3600.0 * rate
    for place, shard in enumerate(waiting):
        left -= said[shard]["rows"]
        if left < 0 and place:  # one shard a night at least, or it would never end
            assigned[shard] = said[shard]["model"]["hash"]
    return assigned


def _said(results: Path, shard: int) -> dict[str, Any]:
    try:
        said: dict[str, Any] = read_json(results / "progress" / "predict" / f"{shard}.json")
    except (FileNotFoundError, Damaged):
        return {}
    return said


def _may_wait(results: Path, said: dict[str, Any], now: str, pdf: str) -> bool:
    """Whether a shard was predicted by an earlier champion that is still there, with columns that mean the same and PDFs on the
    same grid that are stored as they are to be."""
    made = said.get("model", {}).get("hash")
    if made in (None, now) or said["pdf"] != pdf or said.get("meaning") != MEANING:
        return False
    return folder(results, made).is_dir() and _alike(folder(results, made), folder(results, now))


@lru_cache
def _alike(earlier: Path, now: Path) -> bool:
    """Whether two models can be used and have the same grid; looked at once, as there are thousands of shards."""
    from zmill.training import store
    from zmill.training.trained import ModelError

    try:
        return bool(store.describe(earlier)["grid"] == store.describe(now)["grid"])
    except ModelError:  # incomplete, or of another version of zmill: it can make no further row
        return False
