"""Compute from the training rows what the clean stage needs to fill missing values, and write `imputation.json`."""

from pathlib import Path

from zmill.inputs.registry import from_json
from zmill.sample.split import fit_imputation
from zmill.workflow.job import job

with job(snakemake):
    fit_imputation(
        split=Path(snakemake.input.split),
        survey_catalog=Path(snakemake.input.survey).parent,
        inputs=from_json(snakemake.params.inputs),
        out=Path(snakemake.output[0]),
    )
