"""One of RAIL's estimators, informed or applied, in a process of its own with the peers' Python (see peers.sh).

    ENV/bin/python -P tests/benchmarks/rail_peer.py inform|estimate JOB.json

`peers.py` writes the job and reads the answer; nothing of zmill is imported here. Keys of the job: `estimator` (of
`ESTIMATORS`), `settings` of RAIL's stage, `train`, `test` (HDF5, group `photometry`), `model` (RAIL's own file), `grid` [zmin,
zmax, points], `repeats`, `files` and `out`, a folder. `inform.json` and `estimate.json` say what it cost; `density.npy` has the
densities on the grid, float32.

With `files` RAIL reads the test table chunk by chunk and writes its PDFs as it does in production; otherwise both are in
memory. A shape on the grid is asked for afterwards and timed apart: RAIL keeps mixtures and Gaussians as parameters.
"""

from __future__ import annotations

import importlib
import json
import logging
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tables_io

ESTIMATORS = {
    "knn": ("k_nearneigh", "KNearNeigh"),
    "flexzboost": ("flexzboost", "FlexZBoost"),
    "cmnn": ("cmnn", "CMNN"),
    "bpz": ("bpz_lite", "BPZlite"),
    "nn": ("sklearn_neurnet", "SklNeurNet"),
    "trainz": ("train_z", "TrainZ"),
}


def stage(job: dict[str, Any], kind: str, **more: Any) -> Any:
    """RAIL's informer or estimator with the job's settings, those of them that it knows."""
    module, name = ESTIMATORS[job["estimator"]]
    cls = getattr(importlib.import_module(f"rail.estimation.algos.{module}"), name + kind)
    z_min, z_max, points = job["grid"]
    settings = job["settings"] | {"zmin": z_min, "zmax": z_max, "nzbins": points, "hdf5_groupname": "photometry"}
    known = {key: value for key, value in settings.items() if key in cls.config_options}
    return cls.make_stage(name=f"{job['estimator']}_{kind}".lower(), model=job["model"], **known, **more)


def inform(job: dict[str, Any]) -> dict[str, float]:
    """Train on the training table and write RAIL's model."""
    found = stage(job, "Informer")
    rows = tables_io.read(job["train"])
    return timed(lambda: found.inform(rows))[0]


def estimate(job: dict[str, Any]) -> dict[str, float]:
    """Apply the model to the test table: the cheapest of the repeats, and the densities on the grid."""
    out = Path(job["out"])
    costs = []
    for number in range(job["repeats"]):
        target = str(out / f"estimate_{number}.hdf5")
        if job["files"]:
            found = stage(job, "Estimator", input=job["test"], output=target)
            cost, _ = timed(lambda found=found: (found.run(), found.finalize()))
        else:
            found = stage(job, "Estimator", output=target, output_mode="return")
            rows = tables_io.read(job["test"])
            cost, handle = timed(lambda found=found, rows=rows: found.estimate(rows))
        costs.append(cost)
    cost = {key: min(each[key] for each in costs) for key in costs[0]} | {"peak_gib": costs[0]["peak_gib"]}
    if not job["files"]:
        shaped, density = timed(lambda: on_grid(handle.data, np.linspace(*job["grid"])))
        np.save(out / "density.npy", density.astype(np.float32))
        cost |= {f"grid_{key}": value for key, value in shaped.items()}
    return cost


def on_grid(ensemble: Any, z: np.ndarray) -> np.ndarray:
    """(n, len(z)) densities. Of a Gaussian that may be narrower than the grid, the mean over each point's cell."""
    if ensemble.gen_class.name != "norm":
        return np.nan_to_num(ensemble.pdf(z))
    half = 0.5 * (z[1] - z[0])
    cdf = ensemble.cdf(np.append(z - half, z[-1] + half))
    return np.diff(cdf, axis=1) / (2 * half)


def timed(work: Any) -> tuple[dict[str, float], Any]:
    """Processor and wall seconds of the work, the most memory that the process has held, and the work's answer."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = work()
    cost = {"seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
    return cost | {"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}, answer


def main() -> None:
    kind, path = sys.argv[1:]
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    logging.disable(logging.WARNING)
    cost = {"inform": inform, "estimate": estimate}[kind](job)
    (Path(job["out"]) / f"{kind}.json").write_text(json.dumps(cost), encoding="utf-8")


if __name__ == "__main__":
    main()
