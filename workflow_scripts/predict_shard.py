"""Predict the clean partitions of a shard with its assigned model, and write photo-z and PDF partitions with the same rows."""

from pathlib import Path

from zmill.catalog import shards
from zmill.config import Predict
from zmill.inputs.registry import from_json
from zmill.predict.assign import folder
from zmill.predict.shard import predict_shard
from zmill.workflow.job import job

with job(snakemake):
    predict_shard(
        results=Path(snakemake.params.results),
        model_folder=folder(Path(snakemake.params.results), snakemake.params.model),
        shard=int(snakemake.wildcards.shard),
        partitions=shards.read(Path(snakemake.input.shard)),
        survey=from_json(snakemake.params.inputs),
        settings=Predict.model_validate(snakemake.params.predict),
        threads=snakemake.threads,
    )
