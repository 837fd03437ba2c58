"""All predicted partitions go in; once every row of the survey is found among them, two HATS catalogues come out."""

from pathlib import Path

from zmill.predict.finish import finish
from zmill.workflow.job import job

with job(snakemake):
    finish(Path(snakemake.params.results), snakemake.params.survey, snakemake.params.pdf)
