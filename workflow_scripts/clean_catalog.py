"""Finish the HATS catalogue of all clean partitions, after a check that it has exactly the rows of the survey."""

from pathlib import Path

from zmill.clean.shard import finish_catalog
from zmill.workflow.job import job

with job(snakemake) as log:
    rows = finish_catalog(
        survey=Path(snakemake.input.survey).parent,
        clean=Path(snakemake.output[0]).parent,
        name=snakemake.params.name,
    )
    log.info("%s rows in the clean catalogue", f"{rows:,}")
