"""Assign each labelled row to a split, or exclude it with a reason, and write `split.parquet`."""

from pathlib import Path

from zmill.config import Split
from zmill.sample.split import split_matches
from zmill.survey_definition import Survey
from zmill.workflow.job import job

with job(snakemake):
    split_matches(
        matches=Path(snakemake.input.matches),
        survey_catalog=Path(snakemake.input.survey).parent,
        survey=Survey.model_validate(snakemake.params.survey),
        split=Split.model_validate(snakemake.params.split),
        ambiguous=snakemake.params.ambiguous,
        seed=snakemake.params.seed,
        out=Path(snakemake.output.split),
        counts=Path(snakemake.output.counts),
    )
