"""Speed of the template fit beside RAIL's BPZ-lite: `python tests/benchmarks/template.py [--rows N] [--templates 8|22] [--peers ENV]`.

Rows of six bands are fitted with 8 templates at 300 redshifts, from photometry in memory to normalized densities, on one thread of
the CPU and on the first GPU if there is one. BPZ-lite gets the first `--peer-rows` of them: its eight templates, the same redshifts, one
thread.

`objects_per_s_core`  densities per second of one processor, the best of several passes
`objects_per_s_gpu`   densities per wall second on the GPU, the photometry on its way there included
`objects_per_s_bpz`   BPZ-lite's `estimate` per second of one processor
`ratio_bpz`           objects_per_s_core / objects_per_s_bpz
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from bench import cpu_seconds, first, report
from peers import rail

from zmill import sed
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.models import template
from zmill.pdf.grid import Grid

BANDS = tuple("ugrizy")
FILTERS = {band: f"lsst2016-{band}" for band in BANDS}
GRID = Grid(0.01, 3.0, 300)
CONTEXT = ModelContext((PhotometryKind(BANDS, 3, filters=FILTERS),), GRID, seed=1)
BATCH = {"cpu": 4096, "cuda": 65_536}


def galaxies(n: int, table: np.ndarray) -> LabelledBatch:
    """Galaxies of the templates themselves with ten-year LSST-like errors, i from 20 to 25."""
    rng = np.random.default_rng(1)
    z = rng.uniform(0.05, 1.5, n)
    flux = sed.interpolate_types(table, GRID.z, z, rng.uniform(0, 5, n))
    mag = -2.5 * np.log10(flux / flux[:, 3:4]) + rng.uniform(20, 25, (n, 1))
    error = 0.005 + 0.05 * 10 ** (0.4 * (mag - 25))
    none = np.zeros(n, np.int32)
    nan = np.full(mag.shape, np.nan, np.float32)
    rows = Photometry(
        BANDS, mag.astype("f4"), error.astype("f4"), nan, none, none, none, nan[:, 0], np.zeros((n, 0), "f4"), 3
    )
    return LabelledBatch(rows, z, np.ones(n))


def predict(model: template.TemplateFit, rows: Photometry, batch: int) -> None:
    """Densities of all rows."""
    for start in range(0, len(rows), batch):
        density = model.predict(rows[start : start + batch])
    assert torch.isfinite(density).all()


def gpu_seconds(model: template.TemplateFit, rows: Photometry, repeats: int) -> float:
    """Wall seconds of the fastest pass."""
    model.to(torch.device("cuda"))
    predict(model, rows[:1024], BATCH["cuda"])
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        predict(model, rows, BATCH["cuda"])
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=40_960)
    options.add_argument("--peer-rows", type=int, default=5_000)
    options.add_argument("--templates", type=int, choices=(8, 22), default=8)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--peers", type=Path, help="environment of the peers, made by peers.sh")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    per_gap = 0 if arguments.templates == 8 else 2
    table = template.template_fluxes(sed.load_filters(list(FILTERS.values())), GRID.z, per_gap, True)
    model = template.TemplateFit(template.TemplateSettings(per_gap=per_gap), CONTEXT)
    state = {"table": torch.from_numpy(table).float(), "zero_points": torch.zeros(6), "fill": torch.zeros(6)}
    model.restore(state, {"floor": 0.05, "smoothing": 0.02})
    rows = galaxies(arguments.rows, table)
    cost = cpu_seconds(lambda: predict(model, rows.batch, BATCH["cpu"]), arguments.repeats)
    figures: dict[str, float | str | None] = {
        "rows": arguments.rows,
        "redshifts": GRID.size,
        "templates": arguments.templates,
        "objects_per_s_core": arguments.rows / cost,
    }
    if torch.cuda.is_available():
        figures["gpu"] = torch.cuda.get_device_name()
        figures["objects_per_s_gpu"] = arguments.rows / gpu_seconds(model, rows.batch, arguments.repeats)
    if arguments.peers:
        some = first(rows, arguments.peer_rows)
        peer = rail(arguments.peers, "bpz", some, some, CONTEXT, repeats=arguments.repeats).estimate["seconds"]
        figures["objects_per_s_bpz"] = len(some) / peer
        figures["ratio_bpz"] = (arguments.rows / cost) * peer / len(some)
    report("template", figures)


if __name__ == "__main__":
    main()
