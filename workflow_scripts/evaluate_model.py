"""Predict the labelled rows with a trained model, and write the predictions and all metrics."""

from pathlib import Path

import pyarrow.parquet as pq
import torch

from zmill.catalog.files import atomic_write, write_json
from zmill.clean.partition import learned_of
from zmill.inputs.registry import from_json
from zmill.networks.device import choose
from zmill.training import store
from zmill.training.evaluate import evaluate
from zmill.training.samples import read_samples
from zmill.workflow.job import job

with job(snakemake) as log:
    torch.set_num_threads(snakemake.threads)
    survey, device = from_json(snakemake.params.inputs), choose()
    trained = store.load(Path(snakemake.input.model).parent, device, survey)
    held_out = store.load(Path(snakemake.input.held_out).parent, device, survey)
    splits = ("train", "valid", "calib", "test")
    samples = read_samples({split: Path(snakemake.input[split]) for split in splits}, trained.context)
    train = samples.pop("train").rows.batch
    learned = learned_of(snakemake.params.impute, Path(snakemake.input.imputation))
    degradation = trained.context.degradation(train, learned)
    predictions, found = evaluate(
        trained, held_out, samples, snakemake.params.block_order, snakemake.params.seed, degradation
    )
    with atomic_write(snakemake.output.predictions) as temporary:
        pq.write_table(predictions, temporary, compression="zstd")
    found["model_hash"] = store.model_hash(Path(snakemake.input.model).parent)
    write_json(snakemake.output.metrics, found)
    for split, measured in found["splits"].items():
        board = measured.get("board", {})
        log.info("%s: %s rows %s", split, measured["n"], {name: board.get(name) for name in snakemake.params.logged})
    log.info("%.0f rows/s on %s with %d threads", found["rows_per_s"], found["device"], found["threads"])
