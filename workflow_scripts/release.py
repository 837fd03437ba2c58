"""Publish photo-z and PDF catalogues, report and model as an immutable release, which the link `current` points to."""

from pathlib import Path

from zmill.catalog.files import write_json
from zmill.release.publish import publish
from zmill.workflow.job import job

with job(snakemake) as log:
    record = publish(
        Path(snakemake.params.results),
        snakemake.params.keep,
        {"config": snakemake.params.config, "survey": snakemake.params.survey},
        log.info,
        snakemake.threads,
    )
    write_json(snakemake.output[0], {"release": record["release"]})
