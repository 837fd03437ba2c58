"""Simulate the demo sky: the files of the survey, three spectroscopic catalogues, and the true values for tests."""

from pathlib import Path

from zmill.simulate import demo
from zmill.workflow.job import job

with job(snakemake):
    demo.write(
        demo.simulate(snakemake.params.seed, snakemake.params.area),
        tracts=[Path(path) for path in snakemake.output.survey],
        sdss_file=Path(snakemake.output.sdss),
        ned_file=Path(snakemake.output.ned),
        deep_file=Path(snakemake.output.deep),
        truth=[Path(path) for path in snakemake.output.truth],
    )
