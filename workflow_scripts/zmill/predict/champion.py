"""The champion: the model that is applied to the survey, and what a challenger must do to take its place.

`champion/<hash>/` are models that partitions were made by; `champion/champion.json` says which one makes them now and
how each decision fell. Training writes to `models/` and never here, so that rows of a night with no new model get
the old one.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from zmill.catalog import hats
from zmill.catalog.files import read_json, whole, write_json
from zmill.catalog.hats import Partition
from zmill.job import log
from zmill.metrics import badness
from zmill.models import store
from zmill.models.device import choose
from zmill.models.evaluate import Rows, jsonable, predict_sample
from zmill.models.trained import ModelError

HISTORY = 100
"""Decisions that are remembered."""


def state(results: Path) -> Path:
    """The record of the champion."""
    return results / "champion" / "champion.json"


def folder(results: Path, hash_: str) -> Path:
    """Where a model is that is champion, or was one."""
    return results / "champion" / hash_


def current(results: Path) -> Path:
    """The folder of the champion."""
    return folder(results, read_json(state(results))["hash"])


def contend(
    results: Path, name: str, test: pa.Table, metric: str, margin: float, asked: dict[str, Any], block_order: int
) -> dict[str, Any]:
    """Hold the model that was chosen among those trained last against the champion, on test rows that neither has seen.

    It becomes champion if it is better by the margin; or without a contest if there is no champion yet or one that this
    version cannot read, or if settings changed: then another model was asked for.

    Parameters
    ----------
    name : the challenger, in `models/`.
    test : rows of `sample/test.parquet`.
    metric, margin : the challenger's metric must be better than the champion's by more than this share of it.
    asked : settings that say what model is wanted.

    Returns
    -------
    The record: `model`, `hash`, `since`, `metric`, `value` and `test` (all metrics) on the test rows, `asked` (hash),
    and `history`, the latest decision first.
    """
    challenger = results / "models" / name
    hash_, told = store.model_hash(challenger), xxhash.xxh3_128_hexdigest(json.dumps(asked, sort_keys=True).encode())
    before: dict[str, Any] | None = read_json(state(results)) if state(results).is_file() else None
    board = measure(challenger, test, block_order)
    old: dict[str, float] | None = None
    if before is None:
        won, why = True, "it is the first"
    elif before["hash"] == hash_:
        won, why = True, "it is the champion"
    elif before["asked"] != told:
        won, why = True, "settings changed"
    else:
        try:
            old = measure(folder(results, before["hash"]), test, block_order)
            won, why = verdict(metric, board[metric], old[metric], margin)
        except ModelError as error:
            won, why = True, f"the champion cannot be used any more: {error}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    decision: dict[str, Any] = {
        **{"when": now, "challenger": name, "hash": hash_, "rows": len(test), "metric": metric},
        **{"value": board[metric], "champion": old[metric] if old else None, "won": won, "why": why},
    }
    history = [decision, *(before["history"] if before else [])][:HISTORY]
    if won:
        _adopt(challenger, folder(results, hash_))
        since = before["since"] if before and before["hash"] == hash_ else now
        record: dict[str, Any] = {"model": name, "hash": hash_, "since": since, "asked": told, "test": board}
    else:
        assert before is not None
        record = {key: before[key] for key in ("model", "hash", "since", "asked")} | {"test": old}
    record |= {"metric": metric, "value": record["test"][metric], "history": history}
    write_json(state(results), jsonable(record))
    log.info("%s (%s) %s: %s", name, hash_, "is champion" if won else "stays challenger", why)
    return record


def verdict(metric: str, challenger: float, champion: float, margin: float) -> tuple[bool, str]:
    """Whether a challenger is better by more than the margin, and the sentence that says so."""
    bar = badness(metric, champion) - margin * abs(badness(metric, champion))
    won = badness(metric, challenger) < bar or not math.isfinite(champion)
    better = "better than" if won else "not better than"
    return (
        won,
        f"{metric} {challenger:.5g} on test rows is {better} the champion's {champion:.5g} by {100 * margin:g} %",
    )


def measure(model: Path, test: pa.Table, block_order: int) -> dict[str, float]:
    """The leaderboard's metrics of a model on labelled rows."""
    predictions, _, _ = predict_sample(store.load(model, choose()), test, "test", block_order)
    return Rows.of(predictions).board()


def _adopt(model: Path, target: Path) -> None:
    """Copy a model; `model.json` comes last, so that a folder that has it is whole."""
    files = sorted(
        (path for path in model.iterdir() if path.is_file()), key=lambda path: path.name == store.DESCRIPTION
    )
    if (target / store.DESCRIPTION).is_file():
        return
    for path in files:
        with whole(target / path.name) as temporary:
            shutil.copyfile(path, temporary)


# ------------------------------------------------------------------------------------------- several nights


def assign(results: Path, shards: Mapping[int, Sequence[Partition]], budget: float | None, pdf: str) -> dict[int, str]:
    """Hash of the model that each shard is to be predicted by: the champion, or, where a new champion cannot predict
    all of them within the budget, the one that has predicted the shard; it waits for another night.

    Parameters
    ----------
    shards : the plan. budget : hours of prediction that a new champion may take this night; None for all it takes.
    pdf : how PDFs are to be stored (`predict.pdf`); shards that have them otherwise do not wait.
    """
    if not state(results).is_file():
        return {}
    now = read_json(state(results))["hash"]
    said = {shard: _said(results, shard) for shard in shards}
    waiting = [shard for shard in sorted(shards) if _may_wait(results, said[shard], now, pdf)]
    assigned = dict.fromkeys(shards, now)
    if budget is None or not waiting:
        return assigned
    rates = sorted(one["predicted"] / one["seconds"] for one in said.values() if one.get("predicted"))
    rate = rates[len(rates) // 2] if rates else math.inf
    left = budget * 3600.0 * rate
    for place, shard in enumerate(waiting):
        left -= said[shard]["rows"]
        if left < 0 and place:  # one shard a night at least, or it would never end
            assigned[shard] = said[shard]["model"]["hash"]
    return assigned


def _said(results: Path, shard: int) -> dict[str, Any]:
    path = results / "progress" / "predict" / f"{shard}.json"
    said: dict[str, Any] = read_json(path) if path.is_file() else {}
    return said


def _may_wait(results: Path, said: dict[str, Any], now: str, pdf: str) -> bool:
    """Whether a shard was predicted by an earlier champion that is still there, with PDFs on the same grid that are stored as
    they are to be."""
    made = said.get("model", {}).get("hash")
    if made in (None, now) or said["pdf"] != pdf or not (folder(results, made) / store.DESCRIPTION).is_file():
        return False
    try:
        grids = [store.describe(folder(results, one))["grid"] for one in (made, now)]
    except ModelError:  # of another version of zmill: it can make no further row
        return False
    return bool(grids[0] == grids[1])


def known(results: Path) -> set[str]:
    """Hashes of the models that partitions may be of."""
    return {path.parent.name for path in (results / "champion").glob(f"*/{store.DESCRIPTION}")}


def forget(results: Path, partitions: Sequence[Partition]) -> None:
    """Remove models that made none of the partitions and are not the champion."""
    used = {hats.sidecar(results / "photoz", partition)["model"] for partition in partitions}
    for hash_ in known(results) - used - {read_json(state(results))["hash"]}:
        log.info("the model %s has made no partition any more: removed", hash_)
        (folder(results, hash_) / store.DESCRIPTION).unlink()
        shutil.rmtree(folder(results, hash_))
