"""Gates of a release: limits of lost rows, of drift in the measurements and n(z), and of metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from zmill.catalog import hats
from zmill.catalog.files import read_json, write_json
from zmill.config import Gates
from zmill.inputs.base import InputKind
from zmill.release import store
from zmill.workflow.job import log

MOST_GROUPS = 256
"""Largest number of row groups that are read, spread evenly over the sky: enough for medians and n(z) of a large survey."""
LEVELS = np.linspace(0, 1, 65)
"""Probabilities of the quantiles by which n(z) is stored."""


def judge(
    results: Path, gates: Gates, inputs: Sequence[InputKind], settings: dict[str, Any], direction: Mapping[str, int]
) -> dict[str, Any]:
    """Compare the results with the current release and with the limits, and write `gates.json`.

    Parameters
    ----------
    inputs : the input kinds of the survey, which name what is measured of their columns.
    direction : of metrics: 1 higher is better, -1 lower, 0 nearer to zero.
    settings : configuration and survey. Drift is only judged against a release of the same settings, because after a
        change of settings differences are intended.

    Returns
    -------
    `passed`, `checks` (each `gate`, `found`, `limit`, `passed`), `measured`, and `settings` (hash).
    """
    settings_hash = xxhash.xxh3_128_hexdigest(json.dumps(settings, sort_keys=True).encode())
    measured = measure(results, inputs)
    released = (store.current(results) or {}).get("gates", {})
    checks = [*_limits(measured["metrics"], gates, direction)]
    since = None
    if released.get("settings") == settings_hash:
        since = (store.current(results) or {}).get("release")
        if "inputs" not in released["measured"]:
            log.warning(
                "the gates of the measurements (%s) are left out once: an earlier version of zmill made release %s, which lacks their figures",
                ", ".join(measured["inputs"]),
                since,
            )
        checks += _drift(released["measured"], measured, gates)
    content = {
        "passed": all(check["passed"] for check in checks),
        "since": since,
        "checks": checks,
        "measured": measured,
        "settings": settings_hash,
    }
    write_json(results / "gates.json", content)
    for check in checks:
        (log.info if check["passed"] else log.error)("%s", sentence(check))
    return content


def sentence(check: dict[str, Any]) -> str:
    """A check as a sentence."""
    word = "within" if check["passed"] else "beyond"
    found = "no value" if check["found"] is None else f"{check['found']:.5g}"
    return f"{check['gate']}: {found} is {word} its limit of {check['limit']:g}"


def measure(results: Path, inputs: Sequence[InputKind]) -> dict[str, Any]:
    """Number of rows, what the input kinds measure of `survey/` for each of their gates (`InputKind.drift`), quantiles of z_median,
    hashes of the models that predicted them, and the champion's metrics on test rows."""
    found: dict[str, dict[str, float | None]] = {}
    for kind in inputs:
        if names := kind.drift_columns():
            for gate, parts in kind.drift(_sampled(results / "survey", names)).items():
                found.setdefault(gate, {}).update(parts)
    z = _sampled(results / "photoz", ["z_median"]).column("z_median").to_numpy()
    return {
        "rows": hats.rows(results / "photoz"),
        "inputs": found,
        "z": [round(float(value), 6) for value in np.quantile(z, LEVELS)],
        "models": sorted(
            {hats.sidecar(results / "photoz", one)["model"] for one in hats.partitions(results / "photoz")}
        ),
        "metrics": read_json(results / "champion.json")["test"],
    }


def _limits(measured: dict[str, float | None], gates: Gates, direction: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    for name, limit in gates.metrics.items():
        found = measured[name]
        passed = found is not None and _as_good(found, limit, direction[name])
        yield {"gate": f"metrics.{name}", "found": found, "limit": limit, "passed": passed}


def _as_good(found: float, limit: float, direction: int) -> bool:
    return abs(found) <= abs(limit) if direction == 0 else direction * (found - limit) >= 0


def _drift(before: dict[str, Any], now: dict[str, Any], gates: Gates) -> Iterator[dict[str, Any]]:
    lost = max(0.0, 1 - now["rows"] / before["rows"])
    yield _check("rows_lost", lost, gates.rows_lost)
    earlier = before.get("inputs", {})
    for gate, parts in now["inputs"].items():
        for part, present in parts.items():
            was = earlier.get(gate, {}).get(part)
            if present is not None and was is not None:
                yield _check(f"{gate}.{part}", abs(present - was), getattr(gates, gate))
    shift = distance(np.array(before["z"]), np.array(now["z"]))
    if before["models"] == now["models"] and len(now["models"]) == 1:
        yield _check("n_of_z", shift, gates.n_of_z)
    else:  # a better model is expected to change n(z)
        yield _check("n_of_z_new_model", shift, gates.n_of_z_new_model)


def _check(gate: str, found: float, limit: float) -> dict[str, Any]:
    return {"gate": gate, "found": found, "limit": limit, "passed": bool(found <= limit)}


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Largest difference of two cumulative distributions (Kolmogorov-Smirnov), each given by its quantiles at `LEVELS`."""
    at = np.concatenate([one, other])
    steps = np.arange(len(at)) * 1e-12  # where many rows share a redshift, quantiles repeat
    below = [np.interp(at, values + steps[: len(values)], LEVELS) for values in (one, other)]
    return float(np.max(np.abs(below[0] - below[1])))


def _sampled(catalog: Path, names: list[str]) -> pa.Table:
    """Columns of all row groups, or of up to `MOST_GROUPS` spread evenly over the rows; other partitions are not opened."""
    found = hats.partitions(catalog)
    sizes = np.array([hats.sidecar(catalog, partition)["rows"] for partition in found])
    ends = np.cumsum(sizes)
    few = np.ceil(sizes / hats.ROW_GROUP_ROWS).sum() <= MOST_GROUPS
    wanted = np.arange(MOST_GROUPS) * int(ends[-1]) // MOST_GROUPS
    holding = np.searchsorted(ends, wanted, side="right")
    tables = []
    for index in range(len(found)) if few else np.unique(holding).tolist():
        file = pq.ParquetFile(found[index].file(catalog))
        groups = np.arange(file.num_row_groups)
        if not few:
            lengths = [file.metadata.row_group(group).num_rows for group in groups.tolist()]
            inside = wanted[holding == index] - (ends[index] - sizes[index])
            groups = np.unique(np.searchsorted(np.cumsum(lengths), inside, side="right"))
        tables.append(file.read_row_groups(groups.tolist(), columns=names))
    return pa.concat_tables(tables)
