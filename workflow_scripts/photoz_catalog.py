"""Finish the HATS catalogues of photo-z and PDFs, after a check that they have every row of the survey."""

from pathlib import Path

from zmill.predict.finish import finish
from zmill.workflow.job import job

with job(snakemake):
    finish(Path(snakemake.params.results), snakemake.params.survey, snakemake.params.pdf)
