"""Compute the mean color of each pair of neighboring bands from the training rows, and write `imputation.json`."""

from pathlib import Path

from zmill.sample.split import fit_colors
from zmill.workflow.job import job

with job(snakemake):
    fit_colors(
        split=Path(snakemake.input.split),
        survey_catalog=Path(snakemake.input.survey).parent,
        bands=tuple(snakemake.params.bands),
        out=Path(snakemake.output[0]),
    )
