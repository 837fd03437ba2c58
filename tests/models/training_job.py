"""A training job of its own process, for the tests that kill it: python training_job.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from toy_survey import CONTEXT, labelled

from zmill.models import store
from zmill.models.registry import model_class
from zmill.models.trained import fit_and_calibrate

SETTINGS = {
    **{"epochs": 16, "distill_epochs": 16, "members": 2, "width": 48, "distill_width": 32, "blocks": 2},
    **{"dropout": 0.1, "ema": 0.9, "look_every": 2},
}
CPU = torch.device("cpu")


def run(folder: Path) -> None:
    """Train with a checkpoint at every epoch, and save."""
    torch.set_num_threads(1)
    settings = model_class("resmlp").Settings.model_validate(SETTINGS)
    rows = labelled(400, 1), labelled(150, 2), labelled(150, 3)
    identity = store.identity("resmlp", settings, CONTEXT, rows[:2], CPU)

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    with store.Checkpoint(folder / "checkpoint.safetensors", identity, say, every=0) as checkpoint:
        say("started")
        trained = fit_and_calibrate("toy", "resmlp", settings, CONTEXT, *rows, CPU, say, checkpoint)
        store.save(folder / "model", trained)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
