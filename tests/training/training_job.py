"""A training job of its own process, for the tests that kill it: python training_job.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from models.toy_survey import labelled, with_filters
from zmill.inputs.base import LabelledBatch
from zmill.models.registry import model_class
from zmill.training import store
from zmill.training.trained import fit_and_calibrate, refit

SETTINGS = {
    "networks": {
        "finetuning_epochs": 8,
        "synthetic_galaxies": 600,
        "pretraining_epochs": 2,
        "width": 48,
        "blocks": 2,
        "frequencies": 4,
        "embedding": 2,
        "dropout": 0.1,
        "validate_every": 2,
    },
    "neighbors": {"epochs": 6, "width": 32, "frequencies": 4, "embedding": 2, "candidates": 200, "batch": 128},
    "distilled": {"epochs": 3, "width": 32, "blocks": 2, "frequencies": 4, "embedding": 2},
}
CPU = torch.device("cpu")


def run(folder: Path) -> None:
    """Train with a checkpoint at every epoch, and save."""
    torch.set_num_threads(1)
    settings = model_class("ensemble").Settings.model_validate(SETTINGS)
    rows = labelled(400, 1), labelled(150, 2), labelled(150, 3)
    context = with_filters("sdss2010-g", "sdss2010-r", "sdss2010-i")
    identity = store.identity("ensemble", settings, context, rows, CPU)

    def log(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    with store.Checkpoint(folder / "checkpoint.safetensors", identity, log, every=0) as checkpoint:
        log("started")
        trained = fit_and_calibrate("toy", "ensemble", settings, context, *rows, CPU, log, checkpoint)
        refit(trained, LabelledBatch.join(rows), log)
        store.save(folder / "model", trained)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
