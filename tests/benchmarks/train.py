"""What training costs: `python tests/benchmarks/train.py [--models NAME …] [--rows N] [--peers ENV]`.

Every type of model with the settings that docs/models/zoo.yaml has under its name is fitted and calibrated on the training rows
of LSST DC2, each in a process of its own on one thread of the CPU, and on the first GPU if there is one. RAIL's informers get
the same training rows, on one thread.

`<model>_seconds`           of one processor; the choice on validation rows and the calibration are part of it
`<model>_rows_per_s_epoch`  training rows times epochs run / seconds of the fit, of networks
`<model>_peak_gib`          highest resident memory of the process, about 0.4 GiB of which are imports
`<model>_gpu_…`             the same on a GPU, in wall seconds
`<model>_seconds_rail`      RAIL's informer of the same kind
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from bench import ROOT, context_of, first, lsst_dc2, parser, report
from peers import rail

from zmill.config import ModelSettings
from zmill.models import registry
from zmill.models.trained import fit_and_calibrate

ZOO: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docs/models/zoo.yaml").read_text(encoding="utf-8"))["models"]
PEERS = {"knn": "knn", "gbdt": "flexzboost", "cmnn": "cmnn", "template": "bpz", "fcnn": "nn", "trainz": "trainz"}


def alone(name: str, device: str, arguments: argparse.Namespace) -> None:
    """Train one model in this process and print what it cost as JSON."""
    torch.set_num_threads(1)
    sample = lsst_dc2(arguments.data)
    train = first(sample["train"], arguments.rows)
    entry = ModelSettings.model_validate(ZOO[name])
    type_ = entry.type or name
    settings = registry.check_models({name: entry})[name][1]
    rows = train, sample["valid"], sample["calib"]
    wall, cpu = time.perf_counter(), time.process_time()
    trained = fit_and_calibrate(name, type_, settings, context_of("lsst_dc2"), *rows, torch.device(device), _quiet)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = {"seconds": cpu if device == "cpu" else wall}
    epochs = sum(part["history"][-1]["epoch"] for part in _histories(trained.facts["fit"]))
    if epochs:
        share = trained.facts["train_seconds"] / wall
        found["rows_per_s_epoch"] = len(train) * epochs / (found["seconds"] * share)
    found["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(found))


def _quiet(line: str) -> None:
    """Nothing: the log of the fit is not of interest here."""


def _histories(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in (facts, *facts.values()) if isinstance(part, dict) and "history" in part]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--models", nargs="+", default=[name for name in ZOO if name in registry.types()])
    options.add_argument("--rows", type=int, default=10**9, help="at most this many training rows")
    options.add_argument("--alone", nargs=2, metavar=("MODEL", "DEVICE"), help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.alone:
        name, device = arguments.alone
        alone(name, device, arguments)
        return
    sample, context = lsst_dc2(arguments.data), context_of("lsst_dc2")
    train = first(sample["train"], arguments.rows)
    figures: dict[str, float | str | None] = {"training_rows": len(train)}
    devices = {"cpu": "", "cuda": "gpu_"} if torch.cuda.is_available() else {"cpu": ""}
    if torch.cuda.is_available():
        figures["gpu"] = torch.cuda.get_device_name()
    for name in arguments.models:
        for device, prefix in devices.items():
            command = [sys.executable, str(Path(__file__)), "--alone", name, device]
            command += ["--data", str(arguments.data), "--rows", str(arguments.rows)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"{name} on {device}: {found}", flush=True)
            figures |= {f"{name}_{prefix}{key}": value for key, value in found.items()}
        if arguments.peers and name in PEERS:
            cost = rail(arguments.peers, PEERS[name], train, first(sample["test"], 100), context).inform
            figures |= {f"{name}_seconds_rail": cost["seconds"], f"{name}_peak_gib_rail": cost["peak_gib"]}
    report("train", figures)


if __name__ == "__main__":
    main()
