"""Predicting every row against a bare pyarrow pass: `python tests/benchmarks/predict.py [--rows N] [--threads N]`.

A clean HATS catalogue of six bands, as large as a shard, is written and two networks of the sizes that are in use are fitted on a
thousand rows (their speed hardly depends on how well they know redshifts). Then, each in a process of its own and in turn: the
shard's job as the workflow runs it, and a pass that reads the same columns and writes the same output with pyarrow.

`ratio_points`    our wall time / that of the pass; points only, the fully connected network
`ratio_pdf`       the same with compact PDFs, from the flagship, distilled
`rows_per_s_pdf`  rows per second of the latter, loading of the model included
`peak_gib`        highest resident memory of our process, over both
The other figures are for the reader; `cpu_us_per_row` hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
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
import pyarrow.parquet as pq
import torch
from bench import report

from zmill.catalog import hats
from zmill.catalog.hats import Partition
from zmill.config import Predict
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.photometry import batch as photometry
from zmill.inputs.photometry.batch import Photometry, mask_of
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.models.registry import model_class
from zmill.pdf.grid import Grid
from zmill.predict.infer import Stored
from zmill.predict.read import IDENTITY
from zmill.predict.shard import predict_shard
from zmill.training import store
from zmill.training.trained import fit_and_calibrate

BANDS = ("u", "g", "r", "i", "z", "y")
SLOPES = np.array([0.9, 0.6, 0.2, 0.0, -0.1, -0.15])
"""How the magnitudes of the simulated rows change with redshift."""
PASSES: dict[str, tuple[str, Stored]] = {"points": ("fcnn", "none"), "pdf": ("ensemble", "compact")}


def rows_of(number: int, n: int) -> tuple[pa.Table, np.ndarray]:
    """Rows of one partition, some bands imputed, and their redshifts."""
    rng = np.random.default_rng(number)
    start, stop = Partition(6, 5000 + number).interval()
    z = rng.gamma(3.0, 0.3, n).clip(0.01, 2.9)
    brightness = 26 - rng.exponential(1.5, n)
    mag = (brightness[:, None] + SLOPES * z[:, None] + rng.normal(0, 0.1, (n, len(BANDS)))).astype(np.float32)
    error = (0.005 + 0.1 * 10 ** (0.4 * (mag - 25))).astype(np.float32)
    state = rng.choice(3, (n, len(BANDS)), p=[0.94, 0.05, 0.01])
    error[state > 0] = np.nan
    columns: dict[str, Any] = {
        "_healpix_29": np.sort(rng.integers(start, stop, n)),
        "object_id": number * 10_000_000 + np.arange(n),
    }
    columns |= {"ra": rng.uniform(10, 11, n), "dec": rng.uniform(-30, -29, n)}
    limit = np.where(state == 1, 26.5, np.nan).astype(np.float32)
    for kind, values in (("mag", mag), ("magerr", error), ("maglim", limit)):
        columns |= {f"{kind}_{band}": np.ascontiguousarray(values[:, b]) for b, band in enumerate(BANDS)}
    columns |= {"undetected": mask_of(state == 1), "unobserved": mask_of(state == 2), "imputed": mask_of(state > 0)}
    columns |= {"ebv": rng.uniform(0, 0.2, n).astype(np.float32), "cut": (mag[:, 3] > 25.3).astype(np.int32)}
    return pa.table(columns), z


def write_clean(results: Path, rows: int, partition_rows: int) -> list[Partition]:
    """The catalogue that is predicted."""
    found = []
    for number, first in enumerate(range(0, rows, partition_rows)):
        table, _ = rows_of(number, min(partition_rows, rows - first))
        partition = Partition(6, 5000 + number)
        with hats.write_partition(results / "clean", partition, table.schema) as writer:
            writer.write(table)
        found.append(partition)
    hats.finish(results / "clean", "benchmark", found)
    return found


def train(results: Path, student: dict[str, Any]) -> None:
    """Both models, fitted in a hurry, calibrated, saved.

    student : settings of the distilled network.
    """

    def labelled(number: int, n: int) -> LabelledBatch:
        rows, z = rows_of(number, n)
        return LabelledBatch(Photometry.from_arrow(rows, BANDS), z, np.ones(n))

    parts = labelled(900, 1000), labelled(901, 500), labelled(902, 1000)
    context = ModelContext((PhotometryKind(BANDS, 3),), Grid(0.0, 3.0, 301), seed=1)
    brief = {"epochs": 1, "members": 1}
    for name, values in (
        ("fcnn", {"lr": 1e-3, "epochs": 30}),
        ("ensemble", {"networks": brief, "neighbors": brief, "distilled": {"epochs": 1, **student}}),
    ):
        chosen = model_class(name).Settings.model_validate(values)
        trained = fit_and_calibrate(name, name, chosen, context, *parts, torch.device("cpu"), lambda line: None)
        store.save(results / "models" / name, trained)


def ours(results: Path, name: str, threads: int) -> None:
    """The shard's job, as `workflow_scripts/predict_shard.py` runs it."""
    model, pdf = PASSES[name]
    predict_shard(
        results,
        results / "models" / model,
        0,
        hats.partitions(results / "clean"),
        [PhotometryKind(BANDS, 3)],
        Predict(pdf=pdf),
        threads,
    )


def pyarrow_pass(results: Path, outputs: list[str], columns: list[str], threads: int) -> None:
    """Read the columns that the job reads and write what it wrote, with pyarrow and nothing else.

    Ids and positions are those just read; the computed columns are the first batch of each, in memory, again and again.
    """
    pa.set_cpu_count(threads)
    partitions = hats.partitions(results / "clean")
    computed = {
        output: hats.read_columns(results / output, partitions[0]).slice(0, hats.ROW_GROUP_ROWS).combine_chunks()
        for output in outputs
    }
    for partition in partitions:
        with pq.ParquetFile(partition.file(results / "clean")) as source:
            writers = {}
            for output, table in computed.items():
                target = partition.file(results / "pass" / output)
                target.parent.mkdir(parents=True, exist_ok=True)
                writers[output] = pq.ParquetWriter(
                    target,
                    table.schema,
                    compression="zstd",
                    compression_level=1,
                    use_dictionary=[
                        field.name
                        for field in table.schema
                        if not pa.types.is_floating(field.type) and field.name not in IDENTITY
                    ],
                    write_statistics=["_healpix_29"],
                )
            for batch in source.iter_batches(batch_size=hats.ROW_GROUP_ROWS, columns=columns):
                for output, table in computed.items():
                    arrays = [
                        batch.column(column) if column in IDENTITY else table.column(column).chunk(0)[: batch.num_rows]
                        for column in table.schema.names
                    ]
                    writers[output].write_table(pa.table(arrays, schema=table.schema))
            for writer in writers.values():
                writer.close()


def alone(results: Path, work: str, name: str, threads: int) -> dict[str, float]:
    """Run one of the two ways in a process of its own: its wall seconds, imports left out, and its peak memory."""
    for output in ("photoz", "pdf", "pass"):
        if work == "ours" or output == "pass":
            shutil.rmtree(results / output, ignore_errors=True)
    os.sync()
    options = ["--alone", work, name, "--folder", str(results), "--threads", str(threads)]
    done = subprocess.run([sys.executable, __file__, *options], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def stored(catalog: Path) -> int:
    """Bytes of all partitions."""
    return sum(hats.sidecar(catalog, partition)["bytes"] for partition in hats.partitions(catalog.parent / "clean"))


def measure(results: Path, options: argparse.Namespace) -> dict[str, float]:
    """All figures; every way is run `repeats` times in turn and its fastest run counts."""
    write_clean(results, options.rows, options.partition_rows)
    train(results, json.loads(options.student))
    seconds: dict[str, dict[str, list[float]]] = {name: {"ours": [], "pass": []} for name in PASSES}
    cpu: dict[str, float] = {}
    peak = 0.0
    for name in PASSES:
        for _ in range(options.repeats):
            for work in ("ours", "pass"):
                found = alone(results, work, name, options.threads)
                seconds[name][work].append(found["seconds"])
                used = 1e6 * found["cpu_seconds"] / options.rows
                cpu[f"cpu_us_per_row_{name}_{work}"] = min(used, cpu.get(f"cpu_us_per_row_{name}_{work}", used))
                peak = max(peak, found["peak_gib"] if work == "ours" else 0.0)
    best = {name: {work: min(values) for work, values in ways.items()} for name, ways in seconds.items()}
    # The last run of ours wrote compact PDFs; its folders are still there.
    size = {f"bytes_per_row_{name}": stored(results / name) / options.rows for name in ("clean", "photoz", "pdf")}
    figures: dict[str, float] = {"rows": options.rows, "threads": options.threads, "peak_gib": peak}
    for name, ways in best.items():
        figures[f"ratio_{name}"] = ways["ours"] / ways["pass"]
        figures[f"rows_per_s_{name}"] = options.rows / ways["ours"]
        figures[f"rows_per_s_pass_{name}"] = options.rows / ways["pass"]
    return figures | cpu | size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000, help="by default those of a shard")
    parser.add_argument("--partition-rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--folder", type=Path, help="where the catalogues are written and removed again")
    parser.add_argument(
        "--student", default="{}", help="settings of the distilled network as JSON: its size, for example"
    )
    parser.add_argument("--alone", nargs=2, metavar=("WORK", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        work, name = options.alone
        start, cpu = time.perf_counter(), time.process_time()
        if work == "ours":
            ours(options.folder, name, options.threads)
        else:
            columns = [*IDENTITY, *photometry.columns(BANDS), "cut"]
            pyarrow_pass(
                options.folder, {"points": ["photoz"], "pdf": ["photoz", "pdf"]}[name], columns, options.threads
            )
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_gib": peak}))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = measure(Path(folder), options)
    report("predict", figures)


if __name__ == "__main__":
    main()
