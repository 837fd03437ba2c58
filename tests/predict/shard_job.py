"""A shard's job as a program of its own, for tests that kill it or look at how it ends.

`shard_job.py once RESULTS` runs it as the rule's script does. `shard_job.py kill RESULTS TIMES SEED` kills it so many times
with work left, each at a random moment of a run; a run that came to its end is taken away before the next.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from predict_sky import BANDS

from zmill.catalog import hats
from zmill.config import Predict
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.predict import assign
from zmill.predict.infer import Inference
from zmill.predict.shard import computing, predict_shard
from zmill.training import store
from zmill.workflow.job import job

SETTINGS = Predict(pdf="compact", batch_rows=500)


def once(results: Path) -> None:
    """All partitions as one shard."""
    with job(SimpleNamespace(log=[results / "logs" / "predict_shard.log"], output=[], resources={})):
        predict_shard(
            results,
            assign.current(results),
            0,
            hats.partitions(results / "clean"),
            [PhotometryKind(BANDS, 3)],
            SETTINGS,
            threads=2,
        )


def kill(results: Path, times: int, seed: int) -> None:
    """Start and kill, so many times with work left; what is compiled for the model is compiled once, before."""
    with computing(1, torch.device("cpu")) as pool:
        inference = Inference(store.load(assign.current(results)), SETTINGS.pdf, pool)
        inference(next(hats.batches(results / "clean", hats.partitions(results / "clean")[0], COLUMNS, 10)))()
    chance, killed, length = random.Random(seed), 0, 60.0  # s: a whole run takes no longer
    while killed < times:
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            once(results)
            os._exit(0)
        moment = started + chance.uniform(0.0, length)
        while time.monotonic() < moment and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status not in (0, -signal.SIGKILL):
            raise SystemExit(f"the shard ended by itself with {status}")
        if (results / "progress" / "predict" / "0.json").is_file():
            length = min(length, time.monotonic() - started)
            for place in ("photoz", "pdf", "progress"):
                shutil.rmtree(results / place)
        else:
            killed += 1


COLUMNS = ["_healpix_29", "object_id", "ra", "dec", *(f"mag_{band}" for band in BANDS)]

if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "once":
        once(Path(sys.argv[2]))
    else:
        kill(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
