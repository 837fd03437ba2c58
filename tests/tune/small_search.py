"""A quick search on the toy survey, in this process or as a program: python small_search.py FOLDER NUMBER..."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from models.toy_survey import CONTEXT, sample_table
from zmill.catalog.files import write_json
from zmill.config import Search, parse
from zmill.training.samples import Sample
from zmill.tune import trial
from zmill.tune.trial import Task, run

SEARCH: dict[str, Any] = {"space": {"lr": {"low": 1e-5, "high": 1e-1, "log": True}, "hidden": [[8], [16, 16]]}}
SETTINGS: dict[str, Any] = {"epochs": 8, "batch": 64, "ema": 0.0}
ROWS = {"train": 400, "valid": 200, "calib": 150}


def task(search: dict[str, Any] = SEARCH, log: Callable[[str], None] = lambda line: None, **changes: Any) -> Task:
    """A search for settings of `fcnn` by the squared error."""
    given: dict[str, Any] = {
        "model": "quick",
        "type": "fcnn",
        "settings": SETTINGS,
        "search": parse(Search, search, "config.yaml: tune.quick"),
        "metric": "mse",
        "seed": 1,
        "context": CONTEXT,
        "weighted": False,
        "sample": {split: Sample.of(sample_table(n, seed), CONTEXT) for seed, (split, n) in enumerate(ROWS.items(), 1)},
        "device": torch.device("cpu"),
        "log": log,
    }
    return Task(**{**given, **changes})


def done(given: Task, folder: Path, numbers: Iterable[int]) -> list[dict[str, Any]]:
    """Run trials in sequence."""
    return [run(given, number, folder / "journal.jsonl", folder / f"{number}.safetensors") for number in numbers]


class Eager(trial.TrialCheckpoint):
    """Writes its checkpoint after every epoch."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.every = 0.0


def main(folder: Path, numbers: list[int]) -> None:
    """Run trials, print every line of the log, and write the outcomes next to the journal."""

    def log(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    torch.set_num_threads(1)
    trial.TrialCheckpoint = Eager  # type: ignore[misc]
    given = task(log=log)
    for number in numbers:
        (outcome,) = done(given, folder, [number])
        write_json(folder / f"{number}.json", outcome)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(number) for number in sys.argv[2:]])
