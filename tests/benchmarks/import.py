"""Import of a survey into HATS, beside only reading and rewriting the same files with pyarrow.

    python tests/benchmarks/import.py [--rows N] [--threads T] [--files F]

A survey of N rows x 15 columns (id, position, six magnitudes with errors) is written as Parquet, its rows in random order
over 1,000 square degrees. Prints a table and writes `results/benchmarks/import.json`:
`rows_per_s`, `peak_gib` (of all processes together), `ratio` (our wall time / that of the plain pass).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow_scripts"))
BANDS = "ugrizy"

IMPORT = """
import sys
from pathlib import Path
from zmill.config import Partitions
from zmill.survey_definition import Survey
from zmill.survey.importer import import_survey
if __name__ == "__main__":
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    survey = Survey(
        files=["part-*.parquet"],
        columns={"object_id": "id", "ra": "ra", "dec": "dec", "flux": "mag_{band}", "error": "err_{band}"},
        bands=list("ugrizy"),
        sentinels={"undetected": [99.0]},
    )
    out = folder / "out"
    files = sorted((folder / "in").glob("part-*.parquet"))
    import_survey(files, survey, Partitions(), out / "survey", out / "rejected" / "survey.parquet", threads)
"""

REWRITE = """
import sys
from pathlib import Path
import pyarrow.parquet as pq
folder = Path(sys.argv[1])
for file in sorted((folder / "in").glob("part-*.parquet")):
    source = pq.ParquetFile(file)
    with pq.ParquetWriter(folder / "copy.parquet", source.schema_arrow, compression="zstd", compression_level=1) as sink:
        for batch in source.iter_batches(131_072):
            sink.write_batch(batch)
"""


def generate(folder: Path, rows: int, files: int) -> None:
    """Write the survey, file by file."""
    folder.mkdir(parents=True)
    per_file = -(-rows // files)
    for number in range(files):
        n = min(per_file, rows - number * per_file)
        rng = np.random.default_rng(number)
        columns: dict[str, np.ndarray] = {
            "id": rng.permutation(n).astype(np.int64) + number * per_file,
            "ra": rng.uniform(10, 42, n),
            "dec": rng.uniform(-16, 16, n),
        }
        for band in BANDS:
            mag = rng.normal(24, 1.5, n).astype(np.float32)
            columns[f"mag_{band}"] = np.where(mag > 27, np.float32(99), mag)
            columns[f"err_{band}"] = rng.uniform(0.01, 0.5, n).astype(np.float32)
        pq.write_table(pa.table(columns), folder / f"part-{number:05d}.parquet", row_group_size=250_000)


def measure(program: str, *arguments: str) -> tuple[float, float]:
    """Wall time in seconds and peak memory in GiB of a program with all of its children."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(program)
        script.flush()
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, script.name, *arguments], env={"PYTHONPATH": str(ROOT / "workflow_scripts"), "PATH": ""}
        )
        peak = 0
        ended = threading.Event()

        def watch() -> None:
            nonlocal peak
            family = psutil.Process(process.pid)
            while not ended.wait(0.05):
                peak = max(peak, _memory(family))

        watcher = threading.Thread(target=watch)
        watcher.start()
        status = process.wait()
        seconds = time.perf_counter() - started
        ended.set()
        watcher.join()
    if status:
        raise SystemExit(f"the program ended with status {status}")
    return seconds, peak / 2**30


def _memory(family: psutil.Process) -> int:
    total = 0
    try:
        for process in [family, *family.children(recursive=True)]:
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        return total
    return total


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", help="unused: the peer of this figure is pyarrow itself")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zmill-import-") as temporary:
        folder = Path(temporary)
        generate(folder / "in", chosen.rows, chosen.files)
        plain, plain_peak = measure(REWRITE, str(folder))
        ours, peak = measure(IMPORT, str(folder), str(chosen.threads))
    figures = {
        "rows": chosen.rows,
        "threads": chosen.threads,
        "seconds": round(ours, 2),
        "rewrite_seconds": round(plain, 2),
        "rows_per_s": round(chosen.rows / ours),
        "ratio": round(ours / plain, 2),
        "peak_gib": round(peak, 3),
    }
    print(f"{'':24s}{'seconds':>10s}{'rows/s':>14s}{'peak GiB':>10s}")
    print(f"{'read and rewrite':24s}{plain:10.2f}{chosen.rows / plain:14,.0f}{plain_peak:10.2f}")
    print(f"{'import':24s}{ours:10.2f}{chosen.rows / ours:14,.0f}{peak:10.2f}")
    print(f"ratio {ours / plain:.2f}")
    target = ROOT / "results" / "benchmarks" / "import.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
