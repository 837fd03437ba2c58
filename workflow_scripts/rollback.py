"""The link `current` in, the same link on the release before out."""

from pathlib import Path

from zmill.job import job
from zmill.release.rollback import rollback

with job(snakemake) as log:
    rollback(Path(snakemake.params.results), log.info, snakemake.threads)
