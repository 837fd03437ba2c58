"""Folders of the champions, and the assignment of a model to each shard, over several nights if needed.

Snakemake reads this file whenever it starts: torch is imported only where models are compared.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

from zmill.catalog.files import Damaged, read_json

SCHEMA_VERSION = 3
"""Version of the columns of `photoz/` and `pdf/`. It is raised when a column is added or computed differently: earlier predictions
are then computed again, so that no catalogue holds both versions."""


def state(results: Path) -> Path:
    """The record of the champion."""
    return results / "champion" / "champion.json"


def folder(results: Path, hash_: str) -> Path:
    """The folder of a present or former champion."""
    return results / "champion" / hash_


def current(results: Path) -> Path:
    """The folder of the champion."""
    return folder(results, read_json(state(results))["hash"])


def assign(results: Path, shards: Collection[int], budget: float | None, pdf: str) -> dict[int, str]:
    """Hash of the model for each shard: the champion, or, where a new champion cannot predict all shards within the
    budget, the model that predicted the shard before; that shard waits for another night.

    Parameters
    ----------
    shards : numbers of the shards. budget : hours of prediction for a new champion this night; None for no limit.
    pdf : format of stored PDFs (`predict.pdf`); shards with another format do not wait.
    """
    if not state(results).is_file():
        return {}
    now = read_json(state(results))["hash"]
    assigned = dict.fromkeys(shards, now)
    if budget is None:
        return assigned
    records = {shard: _record(results, shard) for shard in sorted(shards)}
    waiting = [shard for shard, one in records.items() if _may_wait(results, one, now, pdf)]
    rates = sorted(one["predicted"] / one["seconds"] for one in records.values() if one.get("predicted"))
    rate = rates[len(rates) // 2] if rates else math.inf
    left = budget * 3600.0 * rate
    for index, shard in enumerate(waiting):
        left -= records[shard]["rows"]
        if left < 0 and index:  # one shard a night at least, or it would never end
            assigned[shard] = records[shard]["model"]["hash"]
    return assigned


def _record(results: Path, shard: int) -> dict[str, Any]:
    try:
        record: dict[str, Any] = read_json(results / "progress" / "predict" / f"{shard}.json")
    except (FileNotFoundError, Damaged):
        return {}
    return record


def _may_wait(results: Path, record: dict[str, Any], now: str, pdf: str) -> bool:
    """Whether a shard was predicted by an existing former champion, with the same schema version, grid, width of the
    odds and format of PDFs."""
    made = record.get("model", {}).get("hash")
    if made in (None, now) or record["pdf"] != pdf or record.get("schema_version") != SCHEMA_VERSION:
        return False
    return folder(results, made).is_dir() and _same_columns(folder(results, made), folder(results, now))


@lru_cache
def _same_columns(earlier: Path, now: Path) -> bool:
    """Whether two models can be loaded and have the same grid and width of the odds; cached, because there are thousands of shards."""
    from zmill.training import store
    from zmill.training.trained import ModelError

    try:
        one, other = (store.describe(model) for model in (earlier, now))
        return bool(one["grid"] == other["grid"] and one["odds"]["width"] == other["odds"]["width"])
    except ModelError:  # incomplete, or of another version of zmill: it can make no further row
        return False
