"""Write the report, one self-contained page, from the summaries of all stages and the predicted catalogue."""

from pathlib import Path

from zmill.report.page import build
from zmill.workflow.job import job

with job(snakemake) as log:
    build(
        Path(snakemake.params.results),
        snakemake.params.name,
        snakemake.params.config,
        snakemake.params.survey,
        Path(snakemake.output.report),
    )
    log.info("%s: open it in a browser", snakemake.output.report)
