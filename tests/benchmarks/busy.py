"""Training beside other work: `python tests/benchmarks/busy.py [--steps N] [--busy N] [--limit SECONDS]`.

1,500 small steps, as zmill takes them (the distilled network of the flagship: width 256, batch 256), in a process of its own for
each way of waiting at the end of an operation that two threads share, first as the machine is and then beside six busy processes.

`<way>_seconds`       wall time; NaN where it took longer than the limit
`<way>_cpu_seconds`   of all threads
`<way>_busy_…`        the same beside the busy processes

Ways: `default` of libgomp, `spin_10000` and `spin_0` (`GOMP_SPINCOUNT`), `passive` (`OMP_WAIT_POLICY`), each with two threads;
`one`, a single thread; `lanes`, what zmill does: two threads that compute half of a step's rows each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bench import report

WAYS: dict[str, dict[str, str]] = {
    "default": {},
    "spin_10000": {"GOMP_SPINCOUNT": "10000"},
    "spin_0": {"GOMP_SPINCOUNT": "0"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one": {},
    "lanes": {},
}
SETTINGS = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")


def alone(way: str, steps: int) -> None:
    """Take the steps in this process and print what they cost as JSON."""
    import torch

    from zmill.models.ensemble import Distilled
    from zmill.networks.losses import cross_entropy
    from zmill.networks.network import ResidualMLP, train
    from zmill.networks.parallel import CPU_LANES

    settings = Distilled.model_validate({"epochs": 1, "batch": 256})
    inputs, answers = torch.randn(256 * steps, 29), torch.rand(256, 301).softmax(1)
    network = ResidualMLP(1, 29, 11, 301, settings)
    lanes = way == "lanes"
    torch.set_flush_denormal(True)

    def loss(network: torch.nn.Module, chosen: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        if not lanes:  # the loop itself takes a single thread
            torch.set_num_threads(1 if way == "one" else CPU_LANES)
        return cross_entropy(network(inputs[chosen]), answers[chosen % 256]).mean(-1).sum()

    wall, cpu = time.perf_counter(), time.process_time()
    train(network, len(inputs), 1, loss, None, settings, 1, lambda line: None, parallel=lanes)
    print(json.dumps({"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=1500)
    options.add_argument("--busy", type=int, default=6, help="processes that do nothing but compute")
    options.add_argument("--limit", type=float, default=120, help="most seconds for one way")
    options.add_argument("--alone", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.alone:
        alone(arguments.alone, arguments.steps)
        return
    figures: dict[str, float | str | None] = {"steps": arguments.steps, "load_average_before": os.getloadavg()[0]}
    plain = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    for prefix, number in (("", 0), ("busy_", arguments.busy)):
        if prefix and not number:
            continue
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
        try:
            for way, environment in WAYS.items():
                command = [sys.executable, str(Path(__file__)), "--alone", way, "--steps", str(arguments.steps)]
                found = {"seconds": float("nan"), "cpu_seconds": float("nan")}
                try:
                    done = subprocess.run(
                        command,
                        env={**plain, **environment},
                        stdout=subprocess.PIPE,
                        check=True,
                        timeout=arguments.limit,
                    )
                    found = json.loads(done.stdout.splitlines()[-1])
                except subprocess.TimeoutExpired:
                    pass
                figures |= {f"{way}_{prefix}{name}": value for name, value in found.items()}
                print(f"{way} {prefix}{found}", flush=True)
        finally:
            for process in others:
                process.kill()
                process.wait()
    report("busy", figures)


if __name__ == "__main__":
    main()
