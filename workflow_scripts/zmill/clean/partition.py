"""Cleaning of one partition of the survey into one partition of the clean catalogue: same rows, same order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from zmill import __version__
from zmill.catalog import hats
from zmill.catalog.files import file_hash, read_json
from zmill.catalog.hats import CatalogError, Partition
from zmill.catalog.sizes import GROUP_BYTES, rows_of
from zmill.clean import cuts
from zmill.inputs.base import InputKind, Rows
from zmill.survey_definition import Cut

CUT = pa.field("cut", pa.int32())


@dataclass(frozen=True)
class Recipe:
    """The settings of the cleaning of every row.

    inputs : the input kinds of the survey.
    learned : name of the kind -> result of its learner; kinds that are left out keep missing values.
    """

    inputs: tuple[InputKind, ...]
    cuts: dict[str, Cut]
    learned: dict[str, Any]

    @property
    def hash(self) -> str:
        """Hash of the recipe and of zmill's version."""
        content = {
            "inputs": {kind.name: kind.to_json() for kind in self.inputs},
            "cuts": [(name, cut.model_dump()) for name, cut in self.cuts.items()],
            "learned": self.learned,
            "zmill": __version__,
        }
        return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())

    @property
    def added(self) -> list[pa.Field]:
        """The columns that `clean/` has and `survey/` has not."""
        return [*(field for kind in self.inputs for field in kind.added()), CUT]


def learned_of(impute: str, imputation: Path) -> dict[str, Any]:
    """Name of the input kind -> facts that its cleaning needs; nothing where `clean.impute` is none."""
    found: dict[str, Any] = read_json(imputation)["learned"] if impute != "none" else {}
    return found


def clean_rows(rows: Rows, recipe: Recipe) -> tuple[Rows, dict[str, Any]]:
    """Rows as the input kinds clean them, with `cut` appended, and the counts of `tally`."""
    failed = cuts.failed(rows, recipe.cuts)  # on measured values, before imputation
    counts: dict[str, Any] = {"rows": rows.num_rows}
    for kind in recipe.inputs:
        rows, found = kind.clean(rows, recipe.learned.get(kind.name))
        counts |= found
    counts["cut"] = {name: int(np.count_nonzero(failed & (1 << bit))) for bit, name in enumerate(recipe.cuts)}
    return rows.append_column(CUT, pa.array(failed)), counts


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
    given_names = schema.names
    for field in recipe.added:
        schema = schema.append(field)
    extra: dict[str, Any] = {"input": given["xxh3_128"], "settings": recipe.hash}
    nothing = pa.table({name: pa.array([], schema.field(name).type) for name in given_names})
    counts = clean_rows(nothing, recipe)[1]
    batch_rows = rows_of(GROUP_BYTES, schema, hats.ROW_GROUP_ROWS)
    with hats.write_partition(clean, partition, schema, extra) as writer:
        for batch in hats.batches(survey, partition, given_names, batch_rows):
            rows, found = clean_rows(batch, recipe)
            writer.write(rows)
            counts = tally([counts, found])
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


def tally(counts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sum of counts of `clean_rows`: `rows`, those of the input kinds, and `cut` per cut.

    Of photometry: `no_band`, and `imputed` and `missing` (left empty) per band.
    """
    total: dict[str, Any] = {}
    for one in counts:
        for key, value in one.items():
            if isinstance(value, dict):
                total[key] = tally([total.get(key, {}), value])
            else:
                total[key] = total.get(key, 0) + value
    return total


def _identity(path: Path) -> tuple[int, int, int]:
    """Inode, size and modification time of a file, which change when it is written to or replaced."""
    there = path.stat()
    return there.st_ino, there.st_size, there.st_mtime_ns
