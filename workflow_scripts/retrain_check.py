"""Compare the present labels with those that the models were trained on, and write whether models are retrained."""

from pathlib import Path

from zmill.config import Refresh
from zmill.sample.retrain import check_retraining
from zmill.workflow.job import job

with job(snakemake):
    check_retraining(
        split=Path(snakemake.input.split),
        sample=Path(snakemake.params.sample),
        state=Path(snakemake.params.state),
        out=Path(snakemake.output[0]),
        settings=snakemake.params.settings,
        refresh=Refresh.model_validate(snakemake.params.refresh),
        period=snakemake.params.period,
    )
