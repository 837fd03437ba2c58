"""Remove the hold on publication that a rollback sets."""

from pathlib import Path

from zmill.release.rollback import resume
from zmill.workflow.job import job

with job(snakemake) as log:
    resume(Path(snakemake.params.results), log.info)
    Path(snakemake.params.released).unlink(missing_ok=True)
