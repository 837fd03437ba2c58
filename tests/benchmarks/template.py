"""Speed of the template fit: `python tests/benchmarks/template.py [--rows N] [--templates 8|22] [--threads N]`.

Rows of six bands are fitted with 8 templates at 300 redshifts, from photometry in memory to normalised densities, on the CPU
(`--threads`, 1 by default) and on the first GPU if there is one.

`objects_per_s_core`  densities per second and thread, the best of three passes
`objects_per_s_gpu`   the same on the GPU
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from zmill import sed  # noqa: E402
from zmill.models import template  # noqa: E402
from zmill.models.base import Context  # noqa: E402
from zmill.pdf.grid import Grid  # noqa: E402
from zmill.survey.photometry import Photometry  # noqa: E402

BANDS = tuple("ugrizy")
GRID = Grid(0.01, 3.0, 300)
BATCH = {"cpu": 4096, "cuda": 65_536}


def photometry(n: int, table: np.ndarray) -> Photometry:
    """Galaxies of the templates themselves with ten-year LSST-like errors, i from 20 to 25."""
    rng = np.random.default_rng(1)
    flux = sed.interpolate_types(table, GRID.z, rng.uniform(0.05, 1.5, n), rng.uniform(0, 5, n))
    mag = -2.5 * np.log10(flux / flux[:, 3:4]) + rng.uniform(20, 25, (n, 1))
    error = 0.005 + 0.05 * 10 ** (0.4 * (mag - 25))
    none = np.zeros(n, np.int32)
    nan = np.full(mag.shape, np.nan, np.float32)
    return Photometry(
        BANDS, mag.astype("f4"), error.astype("f4"), nan, none, none, none, nan[:, 0], np.zeros((n, 0), "f4")
    )


def seconds(model: template.TemplateFit, rows: Photometry, device: torch.device) -> float:
    """The shortest of three passes over the rows."""
    model.to(device)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        for start in range(0, len(rows), BATCH[device.type]):
            density = model.predict(rows[start : start + BATCH[device.type]])
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    assert torch.isfinite(density).all()
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=40_960)
    parser.add_argument("--templates", type=int, choices=(8, 22), default=8)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    per_gap = 0 if options.templates == 8 else 2
    filters = sed.load_filters([f"lsst2016-{band}" for band in BANDS])
    table = template.template_fluxes(filters, GRID.z, per_gap, True)
    settings = template.TemplateSettings(per_gap=per_gap)
    model = template.TemplateFit(settings, Context(bands=BANDS, reference=3, grid=GRID, seed=1))
    state = {"table": torch.from_numpy(table).float(), "zero_points": torch.zeros(6), "fill": torch.zeros(6)}
    model.restore(state, {"floor": 0.05, "smooth": 0.02})
    rows = photometry(options.rows, table)
    figures: dict[str, float | str] = {
        "redshifts": GRID.size,
        "templates": options.templates,
        "objects_per_s_core": round(options.rows / seconds(model, rows, torch.device("cpu")) / options.threads),
    }
    if torch.cuda.is_available():
        model.to(torch.device("cuda"))
        model.predict(rows[:1024])
        figures["gpu"] = torch.cuda.get_device_name()
        figures["objects_per_s_gpu"] = round(options.rows / seconds(model, rows, torch.device("cuda")))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
