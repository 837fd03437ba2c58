"""Clean the survey partitions of a shard: impute missing bands, and mark cuts and imputed bands."""

from pathlib import Path

from zmill.catalog import shards
from zmill.clean.shard import clean_shard, recipe
from zmill.survey_definition import Survey
from zmill.workflow.job import job

if __name__ == "__main__":  # processes of `zmill.workflow.processes` import this file again: they must not do its work
    with job(snakemake):
        clean_shard(
            survey=Path(snakemake.input.survey).parent,
            clean=Path(snakemake.params.clean),
            partitions=shards.read(Path(snakemake.input.shard)),
            recipe=recipe(
                Survey.model_validate(snakemake.params.survey),
                snakemake.params.impute,
                Path(snakemake.input.imputation),
            ),
            progress=Path(snakemake.output[0]),
            threads=snakemake.threads,
        )
