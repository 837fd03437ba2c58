"""The labels there are and those that models have learned from go in; whether models are learned again comes out."""

from pathlib import Path

from zmill.config import Refresh
from zmill.sample.retrain import decide
from zmill.workflow.job import job

with job(snakemake):
    decide(
        split=Path(snakemake.input.split),
        sample=Path(snakemake.params.sample),
        state=Path(snakemake.params.state),
        out=Path(snakemake.output[0]),
        settings=snakemake.params.settings,
        refresh=Refresh.model_validate(snakemake.params.refresh),
        period=snakemake.params.period,
    )
