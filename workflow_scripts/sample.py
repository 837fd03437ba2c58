"""The split and the clean photometry go in; the tables that models train, choose, calibrate and test on come out."""

from pathlib import Path

from zmill.job import job
from zmill.sample import build

with job(snakemake.log[0]):
    build(
        split=Path(snakemake.input.split),
        clean=Path(snakemake.input.clean).parent,
        counts=Path(snakemake.input.counts),
        out=Path(snakemake.output.report).parent,
    )
