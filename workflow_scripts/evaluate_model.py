"""Predict the labelled rows with a trained model, and write the predictions and all metrics."""

from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import torch

from zmill.catalog.files import atomic_write, read_json, write_json
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.impute import MeanColors, fill
from zmill.inputs.photometry.missing_bands import BandRemoval
from zmill.networks.device import choose
from zmill.training import store
from zmill.training.evaluate import evaluate
from zmill.workflow.job import job

with job(snakemake) as log:
    torch.set_num_threads(snakemake.threads)
    bands, device = tuple(snakemake.params.bands), choose()
    trained = store.load(Path(snakemake.input.model).parent, device, bands)
    held_out = store.load(Path(snakemake.input.held_out).parent, device, bands)
    samples = {split: pq.read_table(snakemake.input[split]) for split in ("valid", "calib", "test")}
    colors = MeanColors.from_json(read_json(snakemake.input.imputation))
    train = Photometry.from_arrow(pq.read_table(snakemake.input.train), bands)
    removal = BandRemoval.of(train, partial(fill, colors=colors) if snakemake.params.impute == "mean_color" else None)
    predictions, found = evaluate(
        trained, held_out, samples, snakemake.params.block_order, snakemake.params.seed, removal
    )
    with atomic_write(snakemake.output.predictions) as temporary:
        pq.write_table(predictions, temporary, compression="zstd")
    found["model_hash"] = store.model_hash(Path(snakemake.input.model).parent)
    write_json(snakemake.output.metrics, found)
    for split, measured in found["splits"].items():
        board = measured.get("board", {})
        log.info("%s: %s rows %s", split, measured["n"], {name: board.get(name) for name in snakemake.params.say})
    log.info("%.0f rows/s on %s with %d threads", found["rows_per_s"], found["device"], found["threads"])
