"""The retrain check: models are retrained when enough labels changed, when time has passed, or when settings changed.

Until then the training tables stay as they are. Sky blocks keep their split (`zmill.sample.sample.assign`), so that a new
label joins the split of its block.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from zmill.catalog.files import read_json, write_json
from zmill.config import Refresh
from zmill.sample.sample import SPLITS
from zmill.workflow.dates import term
from zmill.workflow.job import log

COLUMNS = ["object_id", "split", "redshift"]
"""Columns of a table of labels; `object_id` is unique."""
HASHED_ROWS = 65_536


def check_retraining(
    split: Path, sample: Path, state: Path, out: Path, settings: dict[str, Any], refresh: Refresh, period: int
) -> dict[str, Any]:
    """Write `training.json`, whose content changes if and only if models are to be retrained.

    Parameters
    ----------
    split : `split.parquet`, the present labels.
    sample : folder of the tables that the present models were trained on, if any.
    state : file that keeps the last decision and until when it holds (`zmill.workflow.dates.term`); `out` cannot keep it,
        because Snakemake removes `out` before the job.
    settings : of the sample; models are retrained when these change.
    period : number of the current period (`zmill.workflow.dates.period`).

    Returns
    -------
    The last decision to retrain: `why`, `when`, number of `labels` and their `hash`, `settings` (hash).
    """
    now = used(pq.read_table(split, columns=["object_id", "split", "redshift", "excluded"]))
    settings_hash = xxhash.xxh3_128_hexdigest(json.dumps(settings, sort_keys=True).encode())
    before: dict[str, Any] | None = read_json(state) if state.is_file() else None
    trained_on = labels_of(sample)
    fraction = changed(trained_on, now) if trained_on is not None else 1.0
    why = None
    if before is None or trained_on is None:
        why = "there was no sample yet"
    elif before["settings"] != settings_hash:
        why = "settings of the sample changed"
    elif fraction > refresh.labels_changed:
        why = f"{100 * fraction:.2f} % of the labels changed, more than {100 * refresh.labels_changed:g} %"
    elif refresh.every is not None and period > before["period"]:
        why = f"{refresh.every:g} days have passed"
    if why or before is None:
        decision = {"why": why, "labels": len(now), "hash": _hash(now), "settings": settings_hash}
        when = datetime.now(UTC)
        log.info("models are retrained: %s", why)
    else:
        decision = {key: before[key] for key in ("why", "labels", "hash", "settings")}
        when = datetime.fromisoformat(before["when"]) if "when" in before else datetime.now(UTC)
        log.info("models are kept: %.2f %% of the labels changed since they were trained", 100 * fraction)
    write_json(state, decision | {"period": period} | term(when, refresh.every))
    decision["when"] = when.isoformat(timespec="seconds")
    write_json(out, decision)
    return decision


def used(rows: pa.Table) -> pa.Table:
    """The labels of `split.parquet` that are used: `object_id`, `split`, `redshift`."""
    return rows.filter(pc.equal(rows.column("excluded"), "")).select(COLUMNS)


def labels_of(sample: Path) -> pa.Table | None:
    """The labels of the sample's tables, with the columns of `used`; None where a table is missing or none has a row."""
    parts = []
    for side in SPLITS:
        path = sample / f"{side}.parquet"
        if not path.is_file():
            return None
        part = pq.read_table(path, columns=["object_id", "redshift"])
        parts.append(part.append_column("split", pa.repeat(pa.scalar(side), len(part))).select(COLUMNS))
    found = pa.concat_tables(parts)
    return found if len(found) else None


def changed(before: pa.Table, now: pa.Table) -> float:
    """The number of labels added, removed or changed in redshift or split, as a fraction of the number of labels before.

    Where the type of the identifiers differs, all labels count as changed.
    """
    both, same = 0, 0
    if before.schema.field("object_id").type == now.schema.field("object_id").type:
        joined = before.join(now, "object_id", right_suffix="_now", join_type="inner")
        equal = [pc.equal(joined.column(name), joined.column(f"{name}_now")) for name in ("split", "redshift")]
        both, same = len(joined), pc.sum(pc.and_(*equal), min_count=0).as_py()
    return (len(before) + len(now) - both - same) / max(len(before), 1)


def _hash(labels: pa.Table) -> str:
    """xxh3-128 of the labels in the order of their identifiers, in hexadecimal."""
    digest = xxhash.xxh3_128()
    for batch in labels.sort_by("object_id").combine_chunks().to_batches(HASHED_ROWS):
        digest.update(batch.serialize())
    return digest.hexdigest()
