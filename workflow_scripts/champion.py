"""Compare the selected model of the latest training with the deployed model on the test rows, and write which one is applied to the survey."""

import shutil
from pathlib import Path

import torch

from zmill.catalog.files import atomic_write, read_json
from zmill.predict.assign import state
from zmill.predict.champion import contend
from zmill.workflow.job import job

with job(snakemake):
    torch.set_num_threads(snakemake.threads)
    results = Path(snakemake.params.results)
    contend(
        results,
        read_json(snakemake.input.best)["model"],
        Path(snakemake.input.test),
        snakemake.params.metric,
        snakemake.params.margin,
        snakemake.params.requested,
        snakemake.params.block_order,
    )
    with atomic_write(snakemake.output[0]) as temporary:
        shutil.copyfile(state(results), temporary)
