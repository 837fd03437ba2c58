"""A job that counts how often it was begun in `RULE.begun`, then takes memory and time, fails, or waits to be ended."""

import os
import time
from pathlib import Path

from zmill.workflow.job import job

with job(snakemake) as log:
    params = dict(snakemake.params.items())
    begun = Path(f"{snakemake.rule}.begun")
    with begun.open("a") as handle:
        handle.write(f"{snakemake.resources.attempt}\n")
    if "error" in params:
        raise ValueError(params["error"])
    memory = bytearray(b"\1") * (params.get("allocate_mb", 0) * 2**20)
    done = Path(f"{snakemake.rule}.seconds")
    for second in range(len(done.read_text()) if done.exists() else 0, params.get("seconds", 0)):
        time.sleep(1)
        done.write_text("." * (second + 1))
    if len(begun.read_text().splitlines()) <= params.get("wait_times", 0):
        time.sleep(600)
    Path(snakemake.output[0]).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
