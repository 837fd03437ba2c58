"""Compare the finished catalogues with the current release, and write whether they may be published."""

from pathlib import Path

from zmill.config import Gates
from zmill.inputs.registry import from_json
from zmill.metrics import SELECTABLE
from zmill.release.gates import judge
from zmill.workflow.job import job

with job(snakemake):
    judge(
        Path(snakemake.params.results),
        Gates.model_validate(snakemake.params.gates),
        from_json(snakemake.params.inputs),
        snakemake.params.settings,
        SELECTABLE,
    )
