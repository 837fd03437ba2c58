"""Join the split and the clean photometry, and write the training, validation, calibration and test tables."""

from pathlib import Path

from zmill.config import Weights
from zmill.inputs.registry import from_json
from zmill.sample.labelled import build_sample
from zmill.workflow.job import job

with job(snakemake):
    build_sample(
        split=Path(snakemake.input.split),
        clean=Path(snakemake.input.clean).parent,
        counts=Path(snakemake.input.counts),
        out=Path(snakemake.output.report).parent,
        inputs=from_json(snakemake.params.inputs),
        settings=Weights.model_validate(snakemake.params.weights),
        seed=snakemake.params.seed,
        threads=snakemake.threads,
    )
