"""Point the link `current` to the previous release."""

from pathlib import Path

from zmill.release.rollback import rollback
from zmill.workflow.job import job

with job(snakemake) as log:
    rollback(Path(snakemake.params.results), log.info, snakemake.threads)
