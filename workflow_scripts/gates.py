"""Compare the finished catalogues with the current release, and write whether they may be published."""

from pathlib import Path

from zmill.config import Gates
from zmill.metrics import SELECTABLE
from zmill.release.gates import judge
from zmill.workflow.job import job

with job(snakemake):
    judge(
        Path(snakemake.params.results),
        Gates.model_validate(snakemake.params.gates),
        tuple(snakemake.params.bands),
        snakemake.params.settings,
        SELECTABLE,
    )
