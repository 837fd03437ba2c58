"""Simulate stamps of galaxies with catalogue photometry, their redshifts, and the true values for tests."""

from pathlib import Path

from zmill.simulate import image_survey
from zmill.workflow.job import job

with job(snakemake):
    image_survey.simulate(
        snakemake.params.imager,
        snakemake.params.stamps,
        snakemake.params.size,
        snakemake.params.seed,
        **{name: Path(path) for name, path in snakemake.output.items()},
    )
