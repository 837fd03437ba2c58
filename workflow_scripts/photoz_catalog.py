"""All predicted partitions go in; once every row of the survey is found among them, two HATS catalogues come out."""

from pathlib import Path

from zmill.job import job
from zmill.predict.finish import finish

with job(snakemake):
    finish(Path(snakemake.params.results), snakemake.params.survey, snakemake.params.pdf)
