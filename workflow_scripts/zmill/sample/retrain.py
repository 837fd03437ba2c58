"""Whether models are to be learned again: labels changed by more than is allowed for, time has passed, or settings changed.

Until then the tables that models learn from stay as they are, whatever comes in: sky blocks keep their side (`zmill.sample.sample.assign`),
so that a label that is new today joins the split that its block has always been in.
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
"""Of a table of labels; no two have the same `object_id`."""
HASHED_ROWS = 65_536


def decide(
    split: Path, sample: Path, state: Path, out: Path, settings: dict[str, Any], refresh: Refresh, period: int
) -> dict[str, Any]:
    """Write `training.json`; its content changes where, and only where, models are to be learned again.

    Parameters
    ----------
    split : `split.parquet`, the labels there are.
    sample : folder of the tables that the models there are have learned from, if any.
    state : file that keeps what was decided last and until when it holds (`zmill.workflow.dates.term`); Snakemake removes `out`
        before the job.
    settings : of the split; with others there must be another sample.
    period : number of the period that it is (`zmill.workflow.dates.period`).

    Returns
    -------
    What was decided last: `why`, `when`, `labels` used and their hash, `settings` (hash).
    """
    now = used(pq.read_table(split, columns=["object_id", "split", "redshift", "excluded"]))
    told = xxhash.xxh3_128_hexdigest(json.dumps(settings, sort_keys=True).encode())
    before: dict[str, Any] | None = read_json(state) if state.is_file() else None
    learned = learned_from(sample)
    share = changed(learned, now) if learned is not None else 1.0
    why = None
    if before is None or learned is None:
        why = "there was no sample yet"
    elif before["settings"] != told:
        why = "settings of the sample changed"
    elif share > refresh.labels_changed:
        why = f"{100 * share:.2f} % of the labels changed, more than {100 * refresh.labels_changed:g} %"
    elif refresh.every is not None and period > before["period"]:
        why = f"{refresh.every:g} days have passed"
    if why or before is None:
        decided = {"why": why, "labels": len(now), "hash": _hash(now), "settings": told}
        when = datetime.now(UTC)
        log.info("models are learned again: %s", why)
    else:
        decided = {key: before[key] for key in ("why", "labels", "hash", "settings")}
        when = datetime.fromisoformat(before["when"]) if "when" in before else datetime.now(UTC)
        log.info("models stay: %.2f %% of the labels changed since they learned", 100 * share)
    write_json(state, decided | {"period": period} | term(when, refresh.every))
    decided["when"] = when.isoformat(timespec="seconds")
    write_json(out, decided)
    return decided


def used(rows: pa.Table) -> pa.Table:
    """The labels of `split.parquet` that are used: `object_id`, `split`, `redshift`."""
    return rows.filter(pc.equal(rows.column("excluded"), "")).select(COLUMNS)


def learned_from(sample: Path) -> pa.Table | None:
    """The labels of the sample's tables, as of `used`; None where a table is missing or there is no label."""
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
    """Labels that came, went or have another redshift or split, as a share of those that were.

    Where identifiers are of another type than before, all labels are others.
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
