"""Memory against rows: `python tests/benchmarks/memory.py [--rows N N …] [--folder FOLDER]`.

A survey of N rows is a hundred thousand simulated rows under many names (hard links of one partition: N rows take no room). Clean + impute
with two workers, then prediction with compact PDFs on two threads, each in processes of its own; the most proportional memory
of all of them together is measured. 10^8 rows write 25 GB, which are removed again: give `--folder` a disk that has them.

`clean_gib_<rows>`, `predict_gib_<rows>`   peaks
`clean_flat`, `predict_flat`               the highest peak / the lowest
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import PeakMemory, report, table

import predict
from clean import BANDS, RECIPE, write_survey
from zmill.catalog import hats
from zmill.catalog.hats import Partition
from zmill.clean.shard import clean_shard

PARTITION_ROWS = 1_000_000


def replicate(catalog: Path, rows: int, partition_rows: int = PARTITION_ROWS) -> list[Partition]:
    """A catalogue of so many rows, each partition a hard link of the first one."""
    first = Partition(6, 5000)
    found = [Partition(6, 5000 + number) for number in range(rows // partition_rows)]
    for partition in found[1:]:
        for place in (Partition.file, Partition.sidecar):
            place(partition, catalog).parent.mkdir(parents=True, exist_ok=True)
            os.link(place(first, catalog), place(partition, catalog))
    hats.finish(catalog, "benchmark", found)
    return found


def clean(results: Path, workers: int) -> None:
    """Clean the survey as `workflow_scripts/clean_shard.py` does."""
    survey = results / "survey"
    progress = results / "progress.json"
    clean_shard(survey, results / "clean", hats.partitions(survey), RECIPE, progress, workers)
    hats.finish(results / "clean", "benchmark", hats.partitions(survey))


def measured(results: Path, work: str, threads: int) -> tuple[float, float]:
    """Wall seconds and peak memory in GiB of a program that does one of the two."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "--alone", work, "--folder", str(results), "--threads", str(threads)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process, PeakMemory(process.pid) as memory:
        status = process.wait()
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with status {status}")
    return time.perf_counter() - started, memory.gib


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the catalogues are written and removed again")
    parser.add_argument("--alone", choices=["clean", "predict"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone == "clean":
        clean(options.folder, options.threads)
        return
    if options.alone == "predict":
        predict.ours(options.folder, "pdf", options.threads)
        return
    peaks: dict[str, list[float]] = {"clean": [], "predict": []}
    figures: dict[str, float] = {}
    lines = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            results = Path(folder)
            write_survey(results / "survey", PARTITION_ROWS, PARTITION_ROWS)
            replicate(results / "survey", rows)
            predict.train(results, {})
            for work, found in peaks.items():
                seconds, gib = measured(results, work, options.threads)
                found.append(gib)
                figures[f"{work}_gib_{rows}"] = gib
                lines.append([work, rows, seconds, rows / seconds, gib])
            shutil.rmtree(results / "clean")
    table(["", "rows", "seconds", "rows/s", "peak GiB"], lines)
    print()
    report("memory", figures | {f"{work}_flat": max(found) / min(found) for work, found in peaks.items()})


if __name__ == "__main__":
    assert predict.BANDS == BANDS
    main()
