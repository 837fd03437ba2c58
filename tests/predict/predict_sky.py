"""A small clean catalogue and a small model, for the tests of the shard engine and for the programs they kill.

As a program: `predict_sky.py CLEAN OUT` predicts all partitions of CLEAN into OUT, a little slowly, to be killed meanwhile.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from zmill.catalog import hats
from zmill.catalog.hats import Partition
from zmill.catalog.sky import HEALPIX_COLUMN
from zmill.predict.engine import Computed, Work, run
from zmill.predict.write import Output

BANDS = ("u", "g", "r", "i", "z", "y")
ORDER = 4


def clean_rows(partition: Partition, rows: int, seed: int = 0, ids: type = int) -> pa.Table:
    """Rows of a clean catalogue in one partition: the columns of the contract, all kinds of missing bands among them."""
    rng = np.random.default_rng([seed, partition.pixel])
    low, high = partition.interval()
    healpix = np.sort(rng.integers(low, high, rows))
    number = np.arange(rows) + partition.pixel * 1_000_000
    mag = rng.normal(23, 1.5, (rows, len(BANDS))).astype(np.float32)
    state = rng.random((rows, len(BANDS)))
    bit = 1 << np.arange(len(BANDS), dtype=np.int32)
    undetected, unobserved = ((state < 0.05) * bit).sum(1), ((state > 0.95) * bit).sum(1)
    missing = (state < 0.05) | (state > 0.95)
    imputed = np.where(rng.random(rows) < 0.5, undetected | unobserved, 0)
    mag[missing & (imputed == 0)[:, None]] = np.nan
    magerr = np.where(missing, np.nan, 0.05).astype(np.float32)
    maglim = np.where(state < 0.05, 26.0, np.nan).astype(np.float32)
    columns = {HEALPIX_COLUMN: healpix}
    columns["object_id"] = number if ids is int else pa.array([f"obj {n}" for n in number], pa.string())
    columns |= {"ra": rng.uniform(0, 360, rows), "dec": rng.uniform(-90, 90, rows)}
    for name, matrix in (("mag", mag), ("magerr", magerr), ("maglim", maglim)):
        columns |= {f"{name}_{band}": matrix[:, b] for b, band in enumerate(BANDS)}
    for name, mask in (("undetected", undetected), ("unobserved", unobserved), ("imputed", imputed)):
        columns[name] = mask.astype(np.int32)
    columns["ebv"] = rng.uniform(0, 0.1, rows).astype(np.float32)
    columns["cut"] = (rng.random(rows) < 0.1).astype(np.int32)
    return pa.table(columns)


def write_rows(catalog: Path, partition: Partition, table: pa.Table) -> None:
    """One partition with its sidecar."""
    with hats.write_partition(catalog, partition, table.schema) as out:
        out.write(table)


def write_clean(catalog: Path, rows: list[int], ids: type = int) -> list[Partition]:
    """A finished clean catalogue with a partition for each entry of `rows`."""
    partitions = [Partition(ORDER, 7 + 5 * number) for number in range(len(rows))]
    for partition, count in zip(partitions, rows, strict=True):
        write_rows(catalog, partition, clean_rows(partition, count, ids=ids))
    hats.finish(catalog, "test", partitions)
    return partitions


def write_sky(results: Path, rows: list[int]) -> list[Partition]:
    """`clean/`, finished, and the `survey/` that it was made from, with a partition for each entry of `rows`."""
    partitions = [Partition(ORDER, 7 + 5 * number) for number in range(len(rows))]
    for partition, count in zip(partitions, rows, strict=True):
        table = clean_rows(partition, count)
        write_rows(results / "clean", partition, table)
        write_rows(results / "survey", partition, table.drop_columns(["imputed", "cut"]))
    for name in ("clean", "survey"):
        hats.finish(results / name, name, partitions)
    return partitions


def identity_schema(schema: pa.Schema) -> pa.Schema:
    """What the two plain outputs of `plain_work` hold."""
    names = (HEALPIX_COLUMN, "object_id", "ra", "dec")
    return pa.schema([schema.field(name) for name in names] + [pa.field("sum", pa.float32())])


def plain_work(clean: Path, out: Path, batch_rows: int = 300, pause: float = 0.0) -> Work:
    """Work without a model: two outputs, the sum of two magnitudes and its double."""

    def infer(batch: pa.RecordBatch) -> Callable[[], Computed]:
        time.sleep(pause)
        total = batch.column("mag_g").to_numpy() + batch.column("mag_r").to_numpy()
        schema = identity_schema(batch.schema)
        same = [batch.column(name) for name in schema.names[:-1]]
        return lambda: tuple(pa.record_batch([*same, pa.array(k * total, pa.float32())], schema=schema) for k in (1, 2))

    outputs = tuple(
        Output(out / name, identity_schema, {"model": "m1", "pdf": "compact"}) for name in ("photoz", "pdf")
    )
    return Work(clean, ["mag_g", "mag_r", "mag_absent"], ["mag_g", "mag_r"], batch_rows, infer, outputs)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path, with its bytes."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


if __name__ == "__main__":
    clean, out = Path(sys.argv[1]), Path(sys.argv[2])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    run(plain_work(clean, out, pause=0.003), hats.partitions(clean))
