"""Data of the report: the small files of the stages, and columns of the predicted catalogue.

Surveys without positions have no import, labels, cross-match and predicted catalogue: what is not there is None or empty.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from zmill.catalog import hats
from zmill.catalog.files import read_json
from zmill.pdf import arrow
from zmill.pdf.grid import Grid

Floats = NDArray[np.float64]
STACK_ROWS = 100_000
"""Largest number of rows whose PDFs are stacked; larger surveys are sampled by row groups spread over the sky."""
PER_MODEL = {"train_model", "evaluate_model", "tune_trial", "tune_model"}
"""Rules with one job per model."""
STACK_GROUPS = 64
"""Largest number of row groups that are read for the stack."""


@dataclass(frozen=True)
class Work:
    """Cost of one rule: jobs, total seconds, largest memory in MB."""

    rule: str
    jobs: int
    seconds: float
    memory_mb: float


@dataclass(frozen=True)
class Predicted:
    """Counts over all rows of `photoz/`."""

    rows: int
    z_median: NDArray[np.int64]
    """Histogram on the requested bins."""
    flags: dict[int, int]
    """Rows with each bit of `flags`."""
    unflagged: int


class Sources:
    """The folder of a survey's results, read on demand."""

    def __init__(self, results: Path) -> None:
        self.results = results

    def json(self, path: str) -> dict[str, Any] | None:
        """A stage's JSON, or None where the stage was not run."""
        found = self.results / path
        return read_json(found) if found.is_file() else None

    def table(self, path: str, columns: list[str] | None = None) -> pa.Table | None:
        """Columns of a Parquet file, or None where there is none."""
        found = self.results / path
        return pq.read_table(found, columns=columns) if found.is_file() else None

    def rows(self, path: str, columns: list[str], key: str, values: pa.Array) -> pa.Table:
        """Columns of the rows of a Parquet file whose column `key` has one of the values, a row group in memory at a time."""
        with pq.ParquetFile(self.results / path) as file:
            parts = [file.schema_arrow.empty_table().select(columns)]
            for group in range(file.num_row_groups):
                wanted = pa.compute.is_in(file.read_row_group(group, columns=[key]).column(key), value_set=values)
                if pa.compute.any(wanted).as_py():
                    parts.append(file.read_row_group(group, columns=columns).filter(wanted))
        return pa.concat_tables(parts)

    def densities(self, ids: pa.Array, healpix: NDArray[np.int64]) -> dict[Any, tuple[Floats, Floats]]:
        """Identifier -> redshifts and density of rows of `pdf/`, given their identifiers and places on the sky; empty where no PDFs are stored."""
        catalog, found = self.results / "pdf", dict[Any, tuple[Floats, Floats]]()
        if not (catalog / "partition_info.csv").is_file():
            return found
        for partition in hats.partitions(catalog):
            first, end = partition.interval()
            if ((healpix >= first) & (healpix < end)).any():
                path = str(partition.file(catalog).relative_to(self.results))
                table = self.rows(path, ["object_id", "pdf"], "object_id", ids)
                if table.num_rows:
                    density, grid = arrow.densities(table)
                    pairs = zip(table["object_id"].to_pylist(), density.double().numpy(), strict=True)
                    found |= {identity: (grid.z, values) for identity, values in pairs}
        return found

    @cached_property
    def best(self) -> dict[str, Any]:
        """The choice of the model and its reason."""
        found: dict[str, Any] = read_json(self.results / "evaluation" / "best.json")
        return found

    @property
    def chosen(self) -> str:
        """Name of the chosen model."""
        return str(self.best["model"])

    @cached_property
    def leaderboard(self) -> list[dict[str, str]]:
        """Rows of the leaderboard."""
        return _csv(self.results / "evaluation" / "leaderboard.csv")

    @cached_property
    def patterns(self) -> list[dict[str, str]]:
        """Rows of the leaderboard by pattern of missing data."""
        return _csv(self.results / "evaluation" / "patterns.csv")

    def models(self) -> dict[str, dict[str, Any]]:
        """`model.json` of each model of the leaderboard, by name; others, of earlier configurations, are left out."""
        found = {name: self.results / "models" / name / "model.json" for name in sorted(self.names)}
        return {name: read_json(path) for name, path in found.items() if path.is_file()}

    def searches(self) -> dict[str, dict[str, Any]]:
        """`search.json` of each model of the leaderboard whose settings were searched, by name."""
        found = {name: self.results / "tune" / name / "search.json" for name in sorted(self.names)}
        return {name: read_json(path) for name, path in found.items() if path.is_file()}

    def predictions(self, model: str, split: str) -> pa.Table:
        """A model's predictions of the labelled rows of a split."""
        path = self.results / "evaluation" / model / "predictions.parquet"
        return pq.read_table(path, filters=[("split", "==", split)])

    def metrics(self, model: str) -> dict[str, Any]:
        """A model's metrics.json."""
        found: dict[str, Any] = read_json(self.results / "evaluation" / model / "metrics.json")
        return found

    @property
    def names(self) -> list[str]:
        """The models, the chosen one first, the others as they stand on the leaderboard."""
        names = list(dict.fromkeys(row["model"] for row in self.leaderboard))
        return sorted(names, key=lambda name: name != self.chosen)

    def pits(self, split: str) -> dict[str, Floats]:
        """PIT of the labelled rows of a split by model, the chosen one first."""
        return {name: self.predictions(name, split).column("pit").to_numpy() for name in self.names}

    def rejected(self) -> dict[str, dict[str, int]]:
        """Rejected rows: table -> reason -> number of rows."""
        found: dict[str, dict[str, int]] = {}
        for path in sorted((self.results / "rejected").glob("*.parquet")):
            counts_file = path.with_suffix(".json")
            if counts_file.is_file():
                counts = read_json(counts_file)
                found[path.stem] = {key: int(n) for key, n in counts.items() if isinstance(n, int)}
            elif "reason" in pq.read_schema(path).names:
                counted = pq.read_table(path, columns=["reason"]).column("reason").value_counts().to_pylist()
                found[path.stem] = {str(entry["values"]): int(entry["counts"]) for entry in counted}
            else:
                found[path.stem] = {"all": pq.read_metadata(path).num_rows}
        return found

    @property
    def has_catalog(self) -> bool:
        """Whether every row of the survey was predicted."""
        return (self.results / "photoz" / "partition_info.csv").is_file()

    def predicted(self, edges: Floats) -> Predicted:
        """Counts over all rows of `photoz/`, a row group in memory at a time."""
        catalog = self.results / "photoz"
        rows, unflagged = 0, 0
        histogram = np.zeros(len(edges) - 1, np.int64)
        flags: dict[int, int] = defaultdict(int)
        for partition in hats.partitions(catalog):
            for batch in hats.batches(catalog, partition, ["z_median", "flags"], hats.ROW_GROUP_ROWS):
                rows += batch.num_rows
                histogram += np.histogram(batch.column("z_median").to_numpy(), bins=edges)[0]
                bits = batch.column("flags").to_numpy()
                unflagged += int(np.count_nonzero(bits == 0))
                for bit in range(31):
                    marked = int(np.count_nonzero(bits & (1 << bit)))
                    if marked:
                        flags[1 << bit] += marked
        return Predicted(rows, histogram, dict(flags), unflagged)

    def stacked(self) -> tuple[Grid, Floats, int] | None:
        """Mean density of PDFs from all over the sky, its grid, and of how many rows; None where no PDFs are stored."""
        catalog = self.results / "pdf"
        if not (catalog / "partition_info.csv").is_file():
            return None
        groups = [
            (partition.file(catalog), group)
            for partition in hats.partitions(catalog)
            for group in range(pq.read_metadata(partition.file(catalog)).num_row_groups)
        ]
        spread = np.unique(np.linspace(0, len(groups) - 1, min(len(groups), STACK_GROUPS)).round().astype(int))
        each = -(-STACK_ROWS // len(spread))
        total, rows, grid = None, 0, None
        for number in spread:
            path, group = groups[number]
            table = pq.ParquetFile(path).read_row_group(group, columns=["pdf"])
            if not table.num_rows:
                continue
            step = -(-table.num_rows // each)
            density, grid = arrow.densities(table.take(pa.array(np.arange(0, table.num_rows, step))))
            summed = density.double().sum(0).numpy()
            total, rows = summed if total is None else total + summed, rows + len(density)
        return None if total is None or grid is None else (grid, total / rows, rows)

    def work(self) -> list[Work]:
        """Cost of each rule, from Snakemake's benchmark files, in the order in which the rules first ended; without
        models that are not on the leaderboard."""
        folder = self.results / "benchmarks"
        found: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(folder.rglob("*.tsv"), key=lambda path: path.stat().st_mtime):
            rule, *wildcards = path.relative_to(folder).with_suffix("").parts
            if rule not in PER_MODEL or not wildcards or wildcards[0] in self.names:
                found[rule].append(path)
        return [_work(rule, paths) for rule, paths in found.items()]


def _csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def _work(rule: str, paths: list[Path]) -> Work:
    seconds, memory = [], []
    for path in paths:
        with open(path, newline="", encoding="utf-8") as handle:
            for row in csv.DictReader(handle, delimiter="\t"):
                seconds.append(float(row["s"]))
                memory.append(float(row["max_rss"]) if row["max_rss"] not in ("-", "NA") else 0.0)
    return Work(rule, len(paths), sum(seconds), max(memory, default=0.0))
