"""Simulate the spectra of an instrument: without and with noise, their redshifts, and the SEDs that they were made of."""

from pathlib import Path

from zmill.catalog import sources
from zmill.simulate import spectral_survey
from zmill.workflow.job import job

with job(snakemake):
    manifest = Path(snakemake.output.seds).with_name(".seds.json")
    found = sources.look(snakemake.input.seds, manifest)
    spectral_survey.simulate(
        snakemake.params.instrument,
        snakemake.params.spectra,
        [Path(path) for path in snakemake.input.seds],
        snakemake.params.seed,
        **{name: Path(path) for name, path in snakemake.output.items()},
    )
    sources.keep(found, manifest)
