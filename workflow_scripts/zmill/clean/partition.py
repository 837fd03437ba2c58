"""Cleaning of one partition of the survey into one partition of the clean catalogue: same rows, same order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from zmill import __version__
from zmill.catalog import hats
from zmill.catalog.files import file_hash
from zmill.catalog.hats import CatalogError, Partition
from zmill.clean import cuts
from zmill.inputs.photometry.impute import MeanColors, fill
from zmill.survey_definition import Cut

BATCH_ROWS = hats.ROW_GROUP_ROWS
"""Rows in memory at a time: one row group."""
ADDED = (pa.field("imputed", pa.int32()), pa.field("cut", pa.int32()))


@dataclass(frozen=True)
class Recipe:
    """The settings of the cleaning of every row.

    colors : None leaves missing bands empty.
    """

    bands: tuple[str, ...]
    cuts: dict[str, Cut]
    colors: MeanColors | None

    @property
    def hash(self) -> str:
        """Hash of the recipe and of zmill's version."""
        content = {
            "bands": self.bands,
            "cuts": [(name, cut.model_dump()) for name, cut in self.cuts.items()],
            "colors": asdict(self.colors) if self.colors else None,
            "zmill": __version__,
        }
        return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())


def clean_rows(rows: pa.RecordBatch | pa.Table, recipe: Recipe) -> tuple[pa.RecordBatch | pa.Table, dict[str, Any]]:
    """Rows with missing bands filled and `imputed` and `cut` appended, and the counts of `tally`."""
    failed = cuts.failed(rows, recipe.cuts)  # on measured values, before imputation
    names = [f"mag_{band}" for band in recipe.bands]
    if recipe.colors is None:
        mag = [_numpy(rows.column(name)) for name in names]
        imputed = np.zeros(rows.num_rows, np.int32)
    else:
        given = [_numpy(rows.column(name)) for name in names]
        mag, imputed = fill(given, recipe.colors)
        for name, before, after in zip(names, given, mag, strict=True):
            if after is not before:
                rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), pa.array(after))
    for field, mask in zip(ADDED, (imputed, failed), strict=True):
        rows = rows.append_column(field, pa.array(mask))
    return rows, _count(rows.num_rows, mag, imputed, failed, recipe)


def clean_partition(survey: Path, clean: Path, partition: Partition, recipe: Recipe) -> dict[str, Any]:
    """Write one partition of the clean catalogue, batch by batch.

    The sidecar records the input's content hash and the recipe's, by which `complete_counts` recognizes it.

    Returns
    -------
    The counts of `tally`.

    Raises
    ------
    CatalogError
        Where the input differs from its sidecar (corrupt, truncated), or changed while it was read.
    """
    path = partition.file(survey)
    given = hats.sidecar(survey, partition)
    before = _identity(path)
    if file_hash(path) != given["xxh3_128"]:
        raise CatalogError(
            f"{path}: its content differs from its sidecar: corrupt, truncated or written over; import it again"
        )
    schema = pq.read_schema(path)
    for field in ADDED:
        schema = schema.append(field)
    extra: dict[str, Any] = {"input": given["xxh3_128"], "settings": recipe.hash}
    counts = tally([], recipe)
    with hats.write_partition(clean, partition, schema, extra) as writer:
        for batch in hats.batches(survey, partition, schema.names[: -len(ADDED)], BATCH_ROWS):
            rows, found = clean_rows(batch, recipe)
            writer.write(rows)
            counts = tally([counts, found], recipe)
        if writer.rows != given["rows"]:
            raise CatalogError(f"{path}: {writer.rows:,} rows were read, its sidecar says {given['rows']:,}")
        if _identity(path) != before or hats.sidecar(survey, partition) != given:
            raise CatalogError(f"{path}: it was changed while it was read; run again once nothing writes to {survey}")
        extra["counts"] = counts  # known only now; the sidecar is written when the block ends
    return counts


def complete_counts(survey: Path, clean: Path, partition: Partition, recipe: Recipe) -> dict[str, Any] | None:
    """The counts of a partition that is complete and was written from this input by this recipe, else None."""
    if not hats.is_complete(clean, partition):
        return None
    made, given = hats.sidecar(clean, partition), hats.sidecar(survey, partition)
    same = (made["input"], made["settings"], made["rows"]) == (given["xxh3_128"], recipe.hash, given["rows"])
    return made["counts"] if same else None


def tally(counts: Sequence[dict[str, Any]], recipe: Recipe) -> dict[str, Any]:
    """The sum of counts: `rows`, `imputed` and `missing` (left empty) per band, `cut` per cut, `no_band`."""
    total: dict[str, Any] = {
        "rows": 0,
        "no_band": 0,
        "imputed": dict.fromkeys(recipe.bands, 0),
        "missing": dict.fromkeys(recipe.bands, 0),
        "cut": dict.fromkeys(recipe.cuts, 0),
    }
    for one in counts:
        for key in ("rows", "no_band"):
            total[key] += one[key]
        for key in ("imputed", "missing", "cut"):
            for name, count in one[key].items():
                total[key][name] += count
    return total


def _count(
    rows: int, mag: Sequence[np.ndarray], imputed: np.ndarray, failed: np.ndarray, recipe: Recipe
) -> dict[str, Any]:
    empty = [np.isnan(values) for values in mag]
    return {
        "rows": rows,
        "no_band": int(np.count_nonzero(np.logical_and.reduce(empty))),
        "imputed": {band: int(np.count_nonzero(imputed & (1 << bit))) for bit, band in enumerate(recipe.bands)},
        "missing": {band: int(np.count_nonzero(mask)) for band, mask in zip(recipe.bands, empty, strict=True)},
        "cut": {name: int(np.count_nonzero(failed & (1 << bit))) for bit, name in enumerate(recipe.cuts)},
    }


def _numpy(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)


def _identity(path: Path) -> tuple[int, int, int]:
    """Inode, size and modification time of a file, which change when it is written to or replaced."""
    there = path.stat()
    return there.st_ino, there.st_size, there.st_mtime_ns
