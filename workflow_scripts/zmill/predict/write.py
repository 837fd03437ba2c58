"""Writing of an output catalogue behind the inference, with atomic writes of partitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from zmill.catalog import hats
from zmill.catalog.hats import CatalogError, Partition
from zmill.predict.read import Begin, Broken, End


@dataclass(frozen=True)
class Output:
    """One catalogue that the engine writes.

    schema : the schema of the output, from that of the input.
    made : what the output depends on in addition to the input partition (model hash, kind of PDF); stored in every sidecar.
    """

    catalog: Path
    schema: Callable[[pa.Schema], pa.Schema]
    made: dict[str, Any]

    def is_complete(self, partition: Partition, input_hash: str) -> bool:
        """Whether the partition is written already, from this input with these settings."""
        if not hats.is_complete(self.catalog, partition):
            return False
        sidecar = hats.sidecar(self.catalog, partition)
        return all(sidecar.get(key) == value for key, value in {"input": input_hash, **self.made}.items())

    def consume(self, items: Iterator[Begin | pa.RecordBatch | End | Broken]) -> None:
        """Write partition after partition; one that ends as `Broken` leaves no file."""
        for item in items:
            if isinstance(item, Begin):
                try:
                    self._write(item, items)
                except _Abandoned:
                    continue

    def _write(self, begin: Begin, items: Iterator[Any]) -> None:
        # The sidecar is removed first: otherwise a new file with an old sidecar could count as complete.
        begin.partition.sidecar(self.catalog).unlink(missing_ok=True)
        hats.remove_unfinished(self.catalog, begin.partition)
        extra = {"input": begin.hash, **self.made}
        schema = self.schema(begin.schema)
        with hats.write_partition(self.catalog, begin.partition, schema, extra) as out:
            waiting: list[pa.RecordBatch] = []
            for item in items:
                if isinstance(item, Broken):
                    raise _Abandoned
                if isinstance(item, End):
                    break
                waiting.append(item)
                if sum(batch.num_rows for batch in waiting) >= out.group_rows:
                    waiting = _write_groups(out, schema, waiting)
            if waiting:
                out.write(pa.Table.from_batches(waiting, schema))
            if out.rows != begin.rows:
                raise CatalogError(
                    f"{begin.partition.file(self.catalog)}: {out.rows} rows predicted of {begin.rows}: the model gave "
                    "fewer or more densities than rows"
                )


class _Abandoned(Exception):
    """The partition's input cannot be used."""


def _write_groups(out: hats.PartitionWriter, schema: pa.Schema, waiting: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Write complete row groups of the waiting rows, and return the rest."""
    table = pa.Table.from_batches(waiting, schema)
    ready = table.num_rows - table.num_rows % out.group_rows
    out.write(table.slice(0, ready))
    return table.slice(ready).to_batches()
