"""Match the spectra (HATS) to the objects of the survey, and write the matches (Parquet)."""

from pathlib import Path

from zmill.crossmatch.catalogs import crossmatch
from zmill.inputs.registry import from_json
from zmill.workflow.job import job

with job(snakemake):
    crossmatch(
        Path(snakemake.input.survey).parent,
        Path(snakemake.input.specz).parent,
        Path(snakemake.output.matches),
        Path(snakemake.output.counts),
        keep_ambiguous=snakemake.params.ambiguous == "keep",
        threads=snakemake.threads,
        inputs=from_json(snakemake.params.inputs),
    )
