"""The labels there are and those that models have learned from go in; whether models are learned again comes out."""

from pathlib import Path

from zmill.clean.due import decide
from zmill.config import Refresh
from zmill.job import job

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
