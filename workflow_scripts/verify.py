"""Verify the current release; an error names its damaged files."""

from pathlib import Path

from zmill.release.publish import audit
from zmill.workflow.job import job

with job(snakemake) as log:
    audit(Path(snakemake.params.results), log.info, snakemake.threads)
