"""Import the files of the survey into a HATS catalogue with shards, and write the rejected rows."""

from pathlib import Path

from zmill.config import Partitions
from zmill.survey.importer import import_survey
from zmill.survey_definition import Survey
from zmill.workflow.job import job

if __name__ == "__main__":  # worker processes import this file again: they must not do its work
    with job(snakemake):
        import_survey(
            files=[Path(file) for file in snakemake.input.files],
            survey=Survey.model_validate(snakemake.params.survey),
            partitions=Partitions.model_validate(snakemake.params.partitions),
            catalog=Path(snakemake.output.catalog).parent,
            rejected=Path(snakemake.output.rejected),
            threads=snakemake.threads,
            data_dir=Path(snakemake.params.data_dir),
        )
