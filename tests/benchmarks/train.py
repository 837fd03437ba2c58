"""What training costs: `python tests/benchmarks/train.py [--models NAME …] [--rows N …] [--devices cpu cuda] [--peers ENV]`.

Every type of model with the settings that docs/models/zoo.yaml has under its name is fitted, calibrated and fitted again on the
labelled rows of LSST DC2, each in a process of its own, on a CPU and on the first GPU if there is one. On a CPU the networks of the
flagship train in two lanes, everything else on one thread. RAIL's informers get the same training rows, on one thread.

With several numbers of rows each is a training: of more rows than there are, the others are galaxies made of them by moving them in
redshift (`zmill.inputs.photometry.synthetic`), so that costs for 10⁵ and 10⁶ rows are measured, and accuracy is not.

`<model>_seconds`           of processor time (on a GPU wall time); the choice on validation rows and calibration are part of it
`<model>_wall_seconds`      the same in wall time
`<model>_refit_seconds`     of processor time (on a GPU wall time), to fit it again on train, valid and calib rows
`<model>_refit_wall_seconds`
`<model>_rows_per_s_epoch`  training rows times epochs run / seconds of the fit, of networks of one phase
`<model>_peak_gib`          highest resident memory of the process, about 0.4 GiB of which are imports
`<model>_gpu_…`             the same on a GPU
`<model>_at_<rows>_…`       the same for each of several numbers of rows
`<model>_seconds_rail`      RAIL's informer of the same kind
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from bench import ROOT, context_of, first, joined, lsst_dc2, parser, report
from peers import rail

from zmill.config import ModelSettings
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.photometry.synthetic import synthetic_galaxies
from zmill.models import registry
from zmill.training.trained import fit_and_calibrate, refit

ZOO: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docs/models/zoo.yaml").read_text(encoding="utf-8"))["models"]
PEERS = {"knn": "knn", "gbdt": "flexzboost", "cmnn": "cmnn", "template": "bpz", "fcnn": "nn", "trainz": "trainz"}


def alone(name: str, device: str, rows: int, data: Path) -> None:
    """Train one model in this process and print what it cost as JSON."""
    torch.set_num_threads(1)
    sample, context = lsst_dc2(data), context_of("lsst_dc2")
    train, valid, calib = labelled(sample["train"], rows, context), sample["valid"], sample["calib"]
    entry = ModelSettings.model_validate(ZOO[name])
    type_ = entry.type or name
    settings = registry.check_models({name: entry})[name][1]
    clock = Clock(device)
    trained = fit_and_calibrate(name, type_, settings, context, train, valid, calib, torch.device(device), _quiet)
    found = {"seconds": clock.seconds(), "wall_seconds": clock.wall()}
    epochs = sum(part["history"][-1]["epoch"] for part in _histories(trained.facts["fit"]))
    if epochs:
        share = trained.facts["train_seconds"] / found["wall_seconds"]
        found["rows_per_s_epoch"] = len(train) * epochs / (found["seconds"] * share)
    clock = Clock(device)
    refit(trained, joined(train, valid, calib), _quiet)
    found |= {"refit_seconds": clock.seconds(), "refit_wall_seconds": clock.wall()}
    found["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(found))


class Clock:
    """Seconds since it was made: of the processor, or on a GPU of the wall."""

    def __init__(self, device: str) -> None:
        self._device, self._wall, self._cpu = device, time.perf_counter(), time.process_time()

    def wall(self) -> float:
        """Wall time."""
        return time.perf_counter() - self._wall

    def seconds(self) -> float:
        """What counts on the device."""
        return time.process_time() - self._cpu if self._device == "cpu" else self.wall()


def labelled(train: LabelledBatch, number: int, context: ModelContext) -> LabelledBatch:
    """At most so many training rows or, where these are too few, galaxies made of them beside them."""
    more = number - len(train)
    return joined(train, synthetic_galaxies(train, context, more, 7)) if more > 0 else first(train, number)


def _quiet(line: str) -> None:
    """Nothing: the log of the fit is not of interest here."""


def _histories(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in (facts, *facts.values()) if isinstance(part, dict) and "history" in part]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--models", nargs="+", default=[name for name in ZOO if name in registry.types()])
    options.add_argument("--rows", nargs="+", type=int, help="numbers of training rows; by default all there are")
    there = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    options.add_argument("--devices", nargs="+", choices=("cpu", "cuda"), default=there)
    options.add_argument("--alone", nargs=2, metavar=("MODEL", "DEVICE"), help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.alone:
        name, device = arguments.alone
        alone(name, device, arguments.rows[0], arguments.data)
        return
    sample, context = lsst_dc2(arguments.data), context_of("lsst_dc2")
    numbers = arguments.rows or [len(sample["train"])]
    figures: dict[str, float | str | None] = {"training_rows": ", ".join(map(str, numbers))}
    if "cuda" in arguments.devices:
        figures["gpu"] = torch.cuda.get_device_name()
    for name in arguments.models:
        for device, rows in itertools.product(arguments.devices, numbers):
            prefix = ("gpu_" if device == "cuda" else "") + (f"at_{rows}_" if len(numbers) > 1 else "")
            command = [sys.executable, str(Path(__file__)), "--alone", name, device]
            command += ["--data", str(arguments.data), "--rows", str(rows)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"{name} on {device}, {rows} rows at most: {found}", flush=True)
            figures |= {f"{name}_{prefix}{key}": value for key, value in found.items()}
        if arguments.peers and name in PEERS:
            train = first(sample["train"], numbers[0])
            cost = rail(arguments.peers, PEERS[name], train, first(sample["test"], 100), context).inform
            figures |= {f"{name}_seconds_rail": cost["seconds"], f"{name}_peak_gib_rail": cost["peak_gib"]}
    report("train", figures)


if __name__ == "__main__":
    main()
