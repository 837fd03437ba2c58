"""Beside RAIL from file to file: `python tests/benchmarks/rail.py --peers ENV [--rows N]`.

The same training rows of LSST DC2 and the same test rows, over and over up to N, go through RAIL's K nearest neighbors, FlexZBoost and
neural network and through the models of zmill that are like them. RAIL reads the table from a file chunk by chunk and
writes its PDFs; zmill runs the shard's job: from a clean catalogue to point estimates, flags and compact PDFs of every row. Each
has one thread and a process of its own. Rows per second are those of processor time; memory is the most that the process held.

`ratio_<pair>`, `memory_ratio_<pair>`   ours / RAIL's
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from bench import context_of, lsst_dc2, parser, report, table
from peers import rail

from zmill.catalog import hats
from zmill.catalog.hats import Partition
from zmill.config import Predict
from zmill.inputs.base import LabelledBatch
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.models.registry import model_class
from zmill.predict.shard import predict_shard
from zmill.training import store
from zmill.training.trained import fit_and_calibrate

PAIRS = {"knn": "knn", "flexzboost": "gbdt", "nn": "fcnn"}
"""RAIL's estimator: the model type of zmill."""
PARTITION_ROWS = 1_000_000


def repeated(rows: LabelledBatch, number: int) -> LabelledBatch:
    """The rows over and over, `number` in all."""
    chosen = np.arange(number) % len(rows)
    return LabelledBatch(rows.batch[chosen], rows.z[chosen], rows.weight[chosen])


def table_of(rows: Photometry, partition: Partition) -> pa.Table:
    """Rows as a partition of a clean catalogue."""
    n, start = len(rows), partition.interval()[0]
    columns: dict[str, Any] = {"_healpix_29": np.arange(start, start + n), "object_id": np.arange(n)}
    columns |= {"ra": np.zeros(n), "dec": np.zeros(n)}
    for kind in ("mag", "magerr", "maglim"):
        columns |= {f"{kind}_{band}": getattr(rows, kind)[:, b].copy() for b, band in enumerate(rows.bands)}
    columns |= {name: getattr(rows, name) for name in ("undetected", "unobserved", "imputed", "ebv")}
    return pa.table(columns)


def write_clean(results: Path, rows: Photometry) -> None:
    """The clean catalogue that zmill predicts."""
    found = []
    for number, first in enumerate(range(0, len(rows), PARTITION_ROWS)):
        partition = Partition(6, 5000 + number)
        content = table_of(rows[first : first + PARTITION_ROWS], partition)
        with hats.write_partition(results / "clean", partition, content.schema) as writer:
            writer.write(content)
        found.append(partition)
    hats.finish(results / "clean", "benchmark", found)


def alone(results: Path, model: str, bands: tuple[str, ...]) -> None:
    """The shard's job on one thread; prints what it cost."""
    folder = results / "models" / model
    started, cpu = time.perf_counter(), time.process_time()
    predict_shard(
        results, folder, 0, hats.partitions(results / "clean"), [PhotometryKind(bands, 0)], Predict(), threads=1
    )
    cost = {"seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - started}
    print(json.dumps(cost | {"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=200_000)
    options.add_argument("--alone", nargs=2, metavar=("FOLDER", "MODEL"), help=argparse.SUPPRESS)
    arguments = options.parse_args()
    context = context_of("lsst_dc2")
    if arguments.alone:
        alone(Path(arguments.alone[0]), arguments.alone[1], context.of(PhotometryKind).bands)
        return
    if not arguments.peers:
        raise SystemExit(
            "name the environment of the peers with --peers ENV; sh tests/benchmarks/peers.sh ENV makes it"
        )
    sample = lsst_dc2(arguments.data)
    test = repeated(sample["test"], arguments.rows)
    figures: dict[str, float] = {"rows": len(test), "training_rows": len(sample["train"])}
    lines: list[list[float | str]] = []
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        write_clean(results, test.batch)
        for theirs, ours in PAIRS.items():
            settings = model_class(ours).Settings.model_validate({})
            parts = sample["train"], sample["valid"], sample["calib"]
            cpu = torch.device("cpu")
            trained = fit_and_calibrate(ours, ours, settings, context, *parts, cpu, lambda line: None)
            store.save(results / "models" / ours, trained)
            for place in ("photoz", "pdf", "progress"):
                shutil.rmtree(results / place, ignore_errors=True)
            command = [sys.executable, __file__, "--alone", str(results), ours]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            own = json.loads(done.stdout.splitlines()[-1])
            peer = rail(arguments.peers, theirs, sample["train"], test, context, files=True).estimate
            for who, cost in ((f"zmill {ours}", own), (f"RAIL {theirs}", peer)):
                lines.append([who, len(test) / cost["seconds"], cost["peak_gib"]])
            figures[f"rows_per_s_{ours}"] = len(test) / own["seconds"]
            figures[f"rows_per_s_rail_{theirs}"] = len(test) / peer["seconds"]
            figures[f"ratio_{ours}"] = peer["seconds"] / own["seconds"]
            figures[f"memory_ratio_{ours}"] = own["peak_gib"] / peer["peak_gib"]
    table(["", "rows/s per core", "peak GiB"], lines)
    print()
    report("rail", figures)


if __name__ == "__main__":
    main()
