"""Write the sample tables of a survey without positions from its training and test tables."""

from pathlib import Path

from zmill.catalog import sources
from zmill.config import Labels, Split
from zmill.sample.tables import sample_tables
from zmill.survey_definition import Survey
from zmill.workflow.job import job

with job(snakemake):
    manifest = Path(snakemake.params.manifest)
    looked = sources.look([*snakemake.input.train, *snakemake.input.test], manifest)
    sample_tables(
        train=[Path(path) for path in snakemake.input.train],
        test=[Path(path) for path in snakemake.input.test],
        survey=Survey.model_validate(snakemake.params.survey),
        split=Split.model_validate(snakemake.params.split),
        impute=snakemake.params.impute,
        seed=snakemake.params.seed,
        labels=Labels.model_validate(snakemake.params.labels),
        out=Path(snakemake.output.report).parents[1],
    )
    sources.keep(looked, manifest)
