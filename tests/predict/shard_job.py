"""A shard's job as a program of its own, for tests that kill it or look at how it ends.

`shard_job.py once RESULTS` runs it as the rule's script does. `shard_job.py kill RESULTS TIMES SEED` kills it so many times, each
at a random moment of a run; a run that came to its end is taken away before the next. How often that was is printed.
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
from zmill.job import job
from zmill.models import store
from zmill.predict import champion
from zmill.predict.infer import Inference
from zmill.predict.shard import computing, predict_shard

SETTINGS = Predict(pdf="compact", batch_rows=500)


def once(results: Path) -> None:
    """All partitions as one shard."""
    with job(SimpleNamespace(log=[results / "logs" / "predict_shard.log"], resources={})):
        predict_shard(
            results, champion.current(results), 0, hats.partitions(results / "clean"), BANDS, SETTINGS, threads=2
        )


def kill(results: Path, times: int, seed: int) -> int:
    """Start and kill; what is compiled for the model is compiled once, before."""
    with computing(1, torch.device("cpu")) as pool:
        inference = Inference(store.load(champion.current(results)), SETTINGS.pdf, pool)
        inference(next(hats.batches(results / "clean", hats.partitions(results / "clean")[0], COLUMNS, 10)))
    chance, killed, ended = random.Random(seed), 0, 0
    while killed < times:
        if (results / "progress" / "predict" / "0.json").is_file():
            ended += 1
            for place in ("photoz", "pdf", "progress"):
                shutil.rmtree(results / place)
        child = os.fork()
        if child == 0:
            once(results)
            os._exit(0)
        time.sleep(chance.uniform(0.0, 0.4))
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    return ended


COLUMNS = ["_healpix_29", "object_id", "ra", "dec", *(f"mag_{band}" for band in BANDS)]

if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "once":
        once(Path(sys.argv[2]))
    else:
        sys.stdout.write(f"{kill(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))}\n")
