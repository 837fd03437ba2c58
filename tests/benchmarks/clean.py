"""Clean and impute against a bare pyarrow pass: `python tests/benchmarks/clean.py [--rows N] [--keep FOLDER]`.

A HATS survey of six bands is written, a third of its magnitudes missing. The pass reads the same columns and writes the
same output (two integer columns more, the same Parquet settings, a file per partition) and computes nothing.

`ratio`     our wall time / that of the pass, both in one process
`scaling`   our wall time with one worker / with two, their start left out
`peak_gib`  proportional memory of all our processes together, at its highest
`rows_per_s…` and `ratio_two_workers` (the start of processes included, where the rows are enough for them) are for the reader.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench import PeakMemory, report

from zmill.catalog import hats
from zmill.catalog.hats import Partition
from zmill.clean.partition import Recipe
from zmill.clean.shard import clean_shard
from zmill.inputs.photometry.batch import mask_of
from zmill.inputs.photometry.impute import MeanColors
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.survey_definition import Cut
from zmill.workflow.processes import Run, processes

BANDS = ("u", "g", "r", "i", "z", "y")
ORDER = 6
COLORS = MeanColors(BANDS, (1.1, 0.6, 0.3, 0.2, 0.1), (9, 9, 9, 9, 9))
RECIPE = Recipe(
    (PhotometryKind(BANDS, 3),),
    {"faint": Cut(column="mag_i", max=25.3), "small": Cut(column="size", min=0.1)},
    {"photometry": COLORS.to_json()},
)


def write_survey(folder: Path, rows: int, partition_rows: int) -> list[Partition]:
    """A catalogue of simulated magnitudes, correlated as galaxies' are, in equal partitions."""
    found = []
    for number, first in enumerate(range(0, rows, partition_rows)):
        rng = np.random.default_rng(number)
        n = min(partition_rows, rows - first)
        partition = Partition(ORDER, 5000 + number)
        start, stop = partition.interval()
        brightness = 26 - rng.exponential(1.5, n)
        mag = (brightness[:, None] + rng.normal(0, 0.3, (n, len(BANDS))) - 0.3 * np.arange(len(BANDS))).astype(
            np.float32
        )
        state = rng.choice(3, (n, len(BANDS)), p=[0.67, 0.25, 0.08])
        mag[state > 0] = np.nan
        error = (0.005 + 0.1 * 10 ** (0.4 * (mag - 25))).astype(np.float32)
        limit = np.where(state == 1, 26.5, np.nan).astype(np.float32)
        columns: dict[str, Any] = {
            "_healpix_29": np.sort(rng.integers(start, stop, n)),
            "object_id": np.arange(first, first + n),
        }
        columns |= {"ra": rng.uniform(10, 11, n), "dec": rng.uniform(-30, -29, n)}
        for kind, values in (("mag", mag), ("magerr", error), ("maglim", limit)):
            columns |= {f"{kind}_{band}": np.ascontiguousarray(values[:, b]) for b, band in enumerate(BANDS)}
        columns |= {"undetected": mask_of(state == 1), "unobserved": mask_of(state == 2)}
        columns |= {
            "ebv": rng.uniform(0, 0.2, n).astype(np.float32),
            "size": rng.lognormal(0, 0.4, n).astype(np.float32),
        }
        table = pa.table(columns)
        with hats.write_partition(folder, partition, table.schema) as writer:
            for batch in table.to_batches(max_chunksize=hats.ROW_GROUP_ROWS):
                writer.write(batch)
        found.append(partition)
    hats.finish(folder, "benchmark", found)
    return found


def pyarrow_pass(survey: Path, out: Path, partitions: list[Partition]) -> None:
    """Read every column, write it with two constant columns more: nothing but pyarrow."""
    for partition in partitions:
        source, target = partition.file(survey), partition.file(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetFile(source) as file:
            schema = file.schema_arrow
            for name in ("imputed", "cut"):
                schema = schema.append(pa.field(name, pa.int32()))
            settings = {
                "compression": "zstd",
                "compression_level": 1,
                "use_dictionary": ["undetected", "unobserved", "imputed", "cut"],
                "write_statistics": ["_healpix_29"],
            }
            with pq.ParquetWriter(target, schema, **settings) as writer:
                for batch in file.iter_batches(batch_size=hats.ROW_GROUP_ROWS):
                    zeros = pa.array(np.zeros(batch.num_rows, np.int32))
                    writer.write_batch(pa.RecordBatch.from_arrays([*batch.columns, zeros, zeros], schema=schema))


def timed(work: Callable[[], object]) -> float:
    """Wall seconds."""
    os.sync()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(folder: Path, rows: int, partition_rows: int, repeats: int) -> dict[str, float]:
    """All figures; every way is run `repeats` times in turn and its fastest run counts."""
    survey = folder / "survey"
    partitions = write_survey(survey, rows, partition_rows)
    pa.default_memory_pool().release_unused()  # the peak is that of cleaning, not of simulating

    def ours(threads: int, run: Run | None = None) -> None:
        out = folder / "clean"
        clean_shard(survey, out, partitions, RECIPE, folder / "progress.json", threads, run)

    def fresh(work: Callable[[], object]) -> float:
        shutil.rmtree(folder / "clean", ignore_errors=True)
        return timed(work)

    seconds: dict[str, list[float]] = {"pass": [], "one": [], "one_worker": [], "two_workers": [], "two": []}
    with PeakMemory() as memory:
        for _ in range(repeats):
            seconds["pass"].append(fresh(lambda: pyarrow_pass(survey, folder / "clean", partitions)))
            seconds["one"].append(fresh(lambda: ours(1)))
            seconds["two"].append(fresh(lambda: ours(2)))
            for name, workers in (("one_worker", 1), ("two_workers", 2)):
                with processes(workers) as run:
                    list(run([(_import,)] * 2 * workers))
                    seconds[name].append(fresh(partial(ours, workers, run)))
    best = {name: min(values) for name, values in seconds.items()}
    return {
        "rows": rows,
        "ratio": best["one"] / best["pass"],
        "scaling": best["one_worker"] / best["two_workers"],
        "peak_gib": memory.gib,
        "bytes_per_row_survey": sum(hats.sidecar(survey, one)["bytes"] for one in partitions) / rows,
        "ratio_two_workers": best["two"] / best["pass"],
        "rows_per_s": rows / best["one"],
        "rows_per_s_two_workers": rows / best["two_workers"],
        "rows_per_s_pass": rows / best["pass"],
    }


def _import() -> None:
    """Have a worker import what it needs before the clock starts."""
    import zmill.clean.partition  # noqa: F401


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16_000_000)
    parser.add_argument("--partition-rows", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the catalogues are written and removed again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = measure(Path(folder), options.rows, options.partition_rows, options.repeats)
    report("clean", figures)


if __name__ == "__main__":
    main()
