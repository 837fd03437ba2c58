"""Merge spectroscopic redshifts of all sources into one HATS catalogue, with rejected entries and counts."""

from pathlib import Path

from zmill.catalog import sources
from zmill.catalog.files import write_json
from zmill.config import Labels, Partitions
from zmill.labels.build import build
from zmill.survey_definition import LabelSource
from zmill.workflow.job import job

with job(snakemake):
    manifest = Path(snakemake.params.manifest)
    looked = sources.look(snakemake.input.files, manifest)
    facts = build(
        [LabelSource.model_validate(source) for source in snakemake.params.sources],
        Labels.model_validate(snakemake.params.labels),
        Partitions.model_validate(snakemake.params.partitions),
        snakemake.params.radius_arcsec,
        Path(snakemake.params.data_dir),
        Path(snakemake.output.counts).parents[1],
    )
    sources.keep(looked, manifest)
    write_json(snakemake.params.services, {"period": snakemake.params.period, **facts["answers"]})
