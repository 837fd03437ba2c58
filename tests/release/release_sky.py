"""A small finished working folder, as the stages before the release leave it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from zmill.catalog import hats
from zmill.catalog.files import write_json
from zmill.catalog.hats import Partition

SKY = [Partition(3, 17), Partition(3, 18), Partition(4, 300)]
PLACE = [("_healpix_29", pa.int64()), ("object_id", pa.int64()), ("ra", pa.float64()), ("dec", pa.float64())]
PHOTOZ = pa.schema([*PLACE, ("z_mode", pa.float32()), ("z_median", pa.float32()), ("flags", pa.int32())])
PDF = pa.schema([*PLACE, ("pdf", pa.list_(pa.uint16(), 32))])


def write(results: Path, catalog: str, partition: Partition, version: float, rows: int = 40) -> None:
    """Write one partition; the same `version` gives the same bytes."""
    random = np.random.default_rng([partition.order, partition.pixel, int(version * 10)])
    low, high = partition.interval()
    columns = {
        "_healpix_29": np.sort(random.integers(low, high, rows)),
        "object_id": np.arange(rows) + partition.pixel * 1000,
        "ra": random.uniform(0, 360, rows),
        "dec": random.uniform(-90, 90, rows),
    }
    schema = PHOTOZ if catalog != "pdf" else PDF
    if catalog == "pdf":
        flat = pa.array(np.sort(random.integers(0, 65535, (rows, 32)), axis=1).astype(np.uint16).ravel())
        columns["pdf"] = pa.FixedSizeListArray.from_arrays(flat, 32)
    else:
        columns["z_mode"] = np.full(rows, version, np.float32)
        columns["z_median"] = random.uniform(0, 1, rows).astype(np.float32)
        columns["flags"] = np.zeros(rows, np.int32)
    with hats.write_partition(results / catalog, partition, schema, {"model": f"made by {version}"}) as out:
        out.write(pa.table(columns, schema=schema))


def fill(results: Path, version: float = 1.0, sky: list[Partition] | None = None) -> Path:
    """Write everything that a release is made of."""
    for catalog in ("survey", "photoz", "pdf"):
        for partition in sky or SKY:
            write(results, catalog, partition, version)
        hats.finish(results / catalog, f"test {catalog}", sky or SKY)
    write_json(results / "pdf" / "pdf.json", {"kind": "compact", "quantiles": 32})
    write_json(results / "evaluation" / "best.json", {"model": "knn", "why": "lowest crps on valid"})
    (results / "evaluation" / "leaderboard.csv").write_text("model,split,crps\nknn,valid,0.1\n")
    write_json(results / "champion.json", {"model": "knn", "hash": "ab12"})
    write_json(results / "champion" / "ab12" / "model.json", {"type": "knn"})
    (results / "champion" / "ab12" / "tensors.safetensors").unlink(missing_ok=True)
    (results / "champion" / "ab12" / "tensors.safetensors").write_bytes(b"weights %g" % version)
    write_json(results / "imputation.json", {"color": [0.5]})
    write_json(results / "gates.json", {"passed": True, "since": None, "checks": [], "measured": {}, "settings": "s"})
    (results / "report.html").write_text("<!doctype html><p>report</p>")
    return results
