"""The photometry of the training rows goes in; the mean color of each pair of bands (imputation.json) comes out."""

from pathlib import Path

from zmill.sample.split import learn_colors
from zmill.workflow.job import job

with job(snakemake):
    learn_colors(
        split=Path(snakemake.input.split),
        survey_catalog=Path(snakemake.input.survey).parent,
        bands=tuple(snakemake.params.bands),
        out=Path(snakemake.output[0]),
    )
