"""The champion: the deployed model, and the conditions for a challenger to replace it.

`champion/<hash>/` are the models that predicted the partitions; `champion/champion.json` names the deployed model and records
each decision. Training writes to `models/` and never here, so that the deployed model predicts the rows of a night without
a new model.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import xxhash

from zmill.catalog import hats
from zmill.catalog.files import atomic_write, read_json, write_json
from zmill.catalog.hats import Partition
from zmill.metrics import badness
from zmill.networks.device import choose
from zmill.predict.assign import folder, state
from zmill.training import store
from zmill.training.evaluate import Rows, jsonable, predict_sample
from zmill.training.samples import read_samples
from zmill.training.trained import ModelError
from zmill.workflow.job import log

HISTORY = 100
"""Number of decisions in the history."""


def contend(
    results: Path, name: str, test: Path, metric: str, margin: float, requested: dict[str, Any], block_order: int
) -> dict[str, Any]:
    """Compare the chosen one of the latest models with the champion, on test rows that neither was trained on.

    It becomes champion if it is better by the margin; or without a comparison if there is no champion or one that this
    version cannot read, or if settings changed, because another model was then requested.

    Parameters
    ----------
    name : the challenger, in `models/`.
    test : `sample/test.parquet`.
    metric, margin : the challenger's metric must be better than the champion's by more than this fraction of it.
    requested : settings of the requested model.

    Returns
    -------
    The record: `model`, `hash`, `since`, `metric`, `value` and `test` (all metrics) on the test rows, `settings` (hash of the requested ones),
    and `history`, the latest decision first.
    """
    challenger = results / "models" / name
    hash_ = store.model_hash(challenger)
    settings_hash = xxhash.xxh3_128_hexdigest(json.dumps(requested, sort_keys=True).encode())
    before: dict[str, Any] | None = read_json(state(results)) if state(results).is_file() else None
    board = measure(challenger, test, block_order)
    old: dict[str, float] | None = None
    if before is None:
        won, why = True, "it is the first"
    elif before["hash"] == hash_:
        won, why = True, "it is the champion"
    elif before.get("settings") != settings_hash:
        won, why = True, "settings changed"
    else:
        try:
            old = measure(folder(results, before["hash"]), test, block_order)
            won, why = verdict(metric, board[metric], old[metric], margin)
        except ModelError as error:
            won, why = True, f"the champion cannot be used any more: {error}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    decision: dict[str, Any] = {
        **{"when": now, "challenger": name, "hash": hash_, "rows": pq.read_metadata(test).num_rows, "metric": metric},
        **{"value": board[metric], "champion": old[metric] if old else None, "won": won, "why": why},
    }
    history = [decision, *(before["history"] if before else [])][:HISTORY]
    if won:
        _adopt(challenger, folder(results, hash_))
        since = before["since"] if before and before["hash"] == hash_ else now
        record: dict[str, Any] = {
            "model": name,
            "hash": hash_,
            "since": since,
            "settings": settings_hash,
            "test": board,
        }
    else:
        assert before is not None
        record = {key: before[key] for key in ("model", "hash", "since", "settings")} | {"test": old}
    record |= {"metric": metric, "value": record["test"][metric], "history": history}
    write_json(state(results), jsonable(record))
    log.info("%s (%s) %s: %s", name, hash_, "is champion" if won else "stays challenger", why)
    return record


def verdict(metric: str, challenger: float, champion: float, margin: float) -> tuple[bool, str]:
    """Whether a challenger is better by more than the margin, and a sentence with the result."""
    bar = badness(metric, champion) - margin * abs(badness(metric, champion))
    won = badness(metric, challenger) < bar or not math.isfinite(champion)
    better = "better than" if won else "not better than"
    return (
        won,
        f"{metric} {challenger:.5g} on test rows is {better} the champion's {champion:.5g} by {100 * margin:g} %",
    )


def measure(model: Path, test: Path, block_order: int) -> dict[str, float]:
    """The leaderboard's metrics of a model on labelled rows."""
    trained = store.load(model, choose())
    sample = read_samples({"test": test}, trained.context)["test"]
    predictions, _, _ = predict_sample(trained, sample, "test", block_order)
    return Rows.of(predictions).board()


def _adopt(model: Path, target: Path) -> None:
    """Copy a model; `model.json` comes last, so that a folder that has it is complete."""
    try:
        store.describe(target)
    except ModelError:
        for name in (store.TENSORS, store.DESCRIPTION):
            with atomic_write(target / name, check=False) as temporary:
                shutil.copyfile(model / name, temporary)


def known(results: Path) -> set[str]:
    """Hashes of the models in `champion/`, which may have predicted partitions."""
    return {path.parent.name for path in (results / "champion").glob(f"*/{store.DESCRIPTION}")}


def forget(results: Path, partitions: Sequence[Partition]) -> None:
    """Remove models that predicted none of the partitions and are not the champion."""
    used = {hats.sidecar(results / "photoz", partition)["model"] for partition in partitions}
    for hash_ in known(results) - used - {read_json(state(results))["hash"]}:
        log.info("the model %s predicted none of the partitions: removed", hash_)
        (folder(results, hash_) / store.DESCRIPTION).unlink()
        shutil.rmtree(folder(results, hash_))
