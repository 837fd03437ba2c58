"""The link `current` in, the same link on the release before out."""

from pathlib import Path

from zmill.job import job
from zmill.release.rollback import rollback

with job(snakemake.log[0], snakemake.resources.get("attempt", 1)) as log:
    rollback(Path(snakemake.params.results), log.info, snakemake.threads)
