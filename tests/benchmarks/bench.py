"""What several benchmarks share: the rows of LSST DC2, processor time, and how figures are printed and written."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from zmill.catalog.files import write_json  # noqa: E402
from zmill.config import Split, load_survey  # noqa: E402
from zmill.inputs.base import LabelledBatch, ModelContext  # noqa: E402
from zmill.inputs.photometry.batch import Photometry  # noqa: E402
from zmill.inputs.photometry.kind import PhotometryKind  # noqa: E402
from zmill.pdf.grid import Grid  # noqa: E402
from zmill.sample.tables import sample_tables  # noqa: E402

RESULTS = ROOT / "results" / "benchmarks"
SPLITS = ("train", "valid", "calib", "test")
DATA = Path(os.environ.get("ZMILL_TEST_DATA", ROOT.parent / "shared" / "data"))


def parser(about: str | None) -> argparse.ArgumentParser:
    """Options that these benchmarks have in common."""
    options = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--data", type=Path, default=DATA, help="folder that has lsst_dc2/ (default: $ZMILL_TEST_DATA)"
    )
    options.add_argument("--peers", type=Path, help="environment of the peers, made by peers.sh")
    return options


def lsst_dc2(data: Path) -> dict[str, LabelledBatch]:
    """Labelled rows of every split, as the river makes them of RAIL's sample with its default settings."""
    survey = load_survey("lsst_dc2", ROOT / "surveys")
    assert survey.tables
    train, test = ([data / file for file in files] for files in (survey.tables.train, survey.tables.test))
    absent = [str(file) for file in (*train, *test) if not file.is_file()]
    if absent:
        raise SystemExit(f"no {', '.join(absent)}: name the folder that has lsst_dc2/ with --data")
    with tempfile.TemporaryDirectory() as folder:
        sample_tables(train, test, survey, Split(), "mean_color", 1, Path(folder))
        return read(Path(folder, "sample"), context_of("lsst_dc2"))


def read(sample: Path, context: ModelContext) -> dict[str, LabelledBatch]:
    """Labelled rows of every split of a `sample/` folder."""
    return {split: context.labelled(pq.read_table(sample / f"{split}.parquet")) for split in SPLITS}


def first(rows: LabelledBatch, number: int) -> LabelledBatch:
    """At most so many rows."""
    return LabelledBatch(rows.batch[:number], rows.z[:number], rows.weight[:number])


def context_of(name: str) -> ModelContext:
    """What models are told of a survey of `surveys/`."""
    survey = load_survey(name, ROOT / "surveys")
    grid = Grid(survey.redshift_grid.min, survey.redshift_grid.max, survey.redshift_grid.points)
    bands = tuple(survey.bands)
    return ModelContext(
        (PhotometryKind(bands, bands.index(survey.reference), filters=dict(survey.filters)),), grid, seed=1
    )


def joined(*parts: LabelledBatch) -> LabelledBatch:
    """All rows of several parts."""
    z, weight = (np.concatenate([getattr(part, name) for part in parts]) for name in ("z", "weight"))
    return LabelledBatch(Photometry.join([part.batch for part in parts]), z, weight)


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """Processor seconds of all threads for the cheapest of several runs: other work on the machine hardly counts."""
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def report(name: str, figures: Mapping[str, float | str | None]) -> None:
    """Print the figures as a Markdown table and write `results/benchmarks/<name>.json`."""
    figures = {**figures, "load_average": round(os.getloadavg()[0], 1)}
    table(["figure", "value"], [[key, value] for key, value in figures.items()])
    rounded = {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in figures.items()}
    write_json(RESULTS / f"{name}.json", rounded)


def table(head: Sequence[str], rows: Iterable[Sequence[float | str | None]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(said(value) for value in row) + " |", flush=True)


def said(value: float | str | None) -> str:
    """A figure with as many digits as say something."""
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


class PeakMemory(threading.Thread):
    """The most proportional memory (PSS) of a process and its children together, sampled while a block runs."""

    def __init__(self, process: int | None = None) -> None:
        super().__init__(daemon=True)
        self.gib = 0.0
        self._process = psutil.Process(process)
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.1):
            try:
                family = [self._process, *self._process.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            self.gib = max(self.gib, sum(map(_pss, family)) / 2**30)

    def __enter__(self) -> PeakMemory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0
