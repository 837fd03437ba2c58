"""A killed training that is resumed ends with bit-identical weights to an uninterrupted one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import training_job
from safetensors.torch import load_file

import zmill
from models.toy_survey import labelled, with_filters
from zmill.inputs.base import ModelContext
from zmill.models.registry import model_class
from zmill.networks.callbacks import Callback
from zmill.training import store

CPU = torch.device("cpu")
CONTEXT = with_filters("sdss2010-g", "sdss2010-r", "sdss2010-i")
ROWS = labelled(300, 1), labelled(100, 2)
SMALL = {"epochs": 4, "width": 24, "blocks": 1, "frequencies": 2, "embedding": 2}
ENSEMBLE = {
    "networks": {
        **SMALL,
        "dropout": 0.2,
        "validate_every": 2,
        "synthetic_galaxies": 500,
        "pretraining_epochs": 2,
        "finetuning_epochs": 4,
    },
    "neighbors": {**SMALL, "candidates": 100, "batch": 128},
    "distilled": {**SMALL, "batch": 1024},
}
MODELS: dict[str, dict[str, Any]] = {
    "cnn": {"epochs": 6, "optimizer": "rmsprop"},
    "fcnn": {"epochs": 6, "hidden": [16], "one_cycle": True},
    "gat": {"epochs": 4, "embedding": 2},
    "nca": {**SMALL, "candidates": 100, "batch": 128},
    "ensemble": ENSEMBLE,
}


class Stopped(Exception):
    """Stands for a kill where a process of its own would only take time."""


class Stopping(store.Checkpoint):
    """A checkpoint that writes every epoch and stops the job in one of them, before it is written."""

    def __init__(self, path: Path, identity: str, at: tuple[str, int] | None, every: float = 0.0) -> None:
        self.lines: list[str] = []
        super().__init__(path, identity, self.lines.append, every)
        self.at = at

    def validated(self, phase: str, epoch: int, score: float) -> None:
        if (phase, epoch) == self.at:
            raise Stopped


def fit(
    type_: str, changes: dict[str, Any], callback: Callable[[str], Callback], context: ModelContext = CONTEXT
) -> tuple:
    """Weights and facts; `callback` makes the callback from the identity of the training."""
    cls = model_class(type_)
    settings = cls.Settings.model_validate({**MODELS[type_], **changes})
    model = cls(settings, context)
    model.callback = callback(store.identity(type_, settings, context, ROWS, CPU))
    facts = model.fit(*ROWS, CPU, lambda line: None)
    return model.state()[0], facts


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("type_", "stops"),
    [
        ("cnn", [("network", 3)]),
        ("fcnn", [("network", 2), ("network", 5)]),
        ("gat", [("network", 2)]),
        ("nca", [("neighbors 1", 2), ("neighbors 2", 4)]),
        ("ensemble", [("networks", 4), ("distilled", 2), ("distilled", 4)]),
    ],
)
def test_a_stopped_training_ends_like_one_that_was_not(tmp_path: Path, type_: str, stops: list) -> None:
    path = tmp_path / "checkpoint.safetensors"
    weights, facts = fit(type_, {}, lambda identity: Callback())
    for stop in stops:
        with pytest.raises(Stopped):
            fit(type_, {}, lambda identity, stop=stop: Stopping(path, identity, stop))
    resumed = fit(type_, {}, lambda identity: Stopping(path, identity, None))
    assert same(resumed[0], weights)
    assert resumed[1] == facts


def test_early_stopping_counts_on(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    settings = {"epochs": 200, "patience": 3, "lr": 0.05}
    weights, facts = fit("cnn", settings, lambda identity: Callback())
    last = facts["history"][-1]["epoch"]
    assert facts["best_epoch"] + 3 == last < 200
    with pytest.raises(Stopped):
        fit("cnn", settings, lambda identity: Stopping(path, identity, ("network", last - 1)))
    assert same(fit("cnn", settings, lambda identity: Stopping(path, identity, None))[0], weights)


def test_a_completed_phase_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Stopped):
        fit("ensemble", {}, lambda identity: Stopping(path, identity, ("distilled", 2)))
    phases: list[str] = []

    class Recording(Stopping):
        def validated(self, phase: str, epoch: int, score: float) -> None:
            phases.append(phase)

    fit("ensemble", {}, lambda identity: Recording(path, identity, None))
    assert set(phases) == {"distilled"}


@pytest.mark.parametrize("what", ["settings", "rows", "seed", "version"])
def test_what_was_left_by_another_training_is_not_used(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Stopped):
        fit("cnn", {}, lambda identity: Stopping(path, identity, ("network", 3)))
    changes, context = {}, CONTEXT
    if what == "settings":
        changes = {"lr": 2e-3}
    elif what == "seed":
        context = replace(CONTEXT, seed=4)
    elif what == "version":
        monkeypatch.setattr(zmill, "__version__", "0.0.0")
    else:
        other = ROWS[0].z.copy()
        other[7] += 1e-9
        monkeypatch.setattr(sys.modules[__name__], "ROWS", (replace(ROWS[0], z=other), ROWS[1]))
    weights, _ = fit("cnn", changes, lambda identity: Callback(), context)
    used: list[Stopping] = []

    def callback(identity: str) -> Callback:
        used.append(Stopping(path, identity, None))
        return used[0]

    assert same(fit("cnn", changes, callback, context)[0], weights)
    assert "left by a training with other settings, rows or version: starting from the beginning" in used[0].lines[0]


def test_a_damaged_checkpoint_is_logged_and_not_used(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Stopped):
        fit("cnn", {}, lambda identity: Stopping(path, identity, ("network", 3)))
    path.write_bytes(path.read_bytes()[:-100])
    checkpoint = Stopping(path, "any", None)
    assert "cannot be read" in checkpoint.lines[0]
    assert checkpoint.saved("network") is None


def test_a_checkpoint_is_written_at_most_every_interval_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    with Stopping(path, "one", None, every=3600) as checkpoint:
        for epoch in range(3):
            checkpoint.save("network", lambda epoch=epoch: ({"weight": torch.ones(2)}, {"epoch": epoch}))
        assert not path.exists()
        checkpoint.every = 0
        checkpoint.save("network", lambda: ({"weight": torch.ones(2)}, {"epoch": 4}))
        assert set(load_file(path)) == {"network/weight"}
        (tmp_path / f".{path.name}.123.tmp").write_bytes(b"of a killed job")
    assert not list(tmp_path.iterdir())


def test_it_stays_when_the_job_fails(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Stopped), Stopping(path, "one", None) as checkpoint:
        checkpoint.save("network", lambda: ({"weight": torch.ones(2)}, {"epoch": 1}))
        raise Stopped
    assert path.exists()
    assert Stopping(path, "one", None).saved("network") is not None


@pytest.mark.slow
def test_a_job_killed_at_any_time_and_resumed_gives_the_same_bytes(tmp_path: Path) -> None:
    program = [sys.executable, training_job.__file__]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def start(folder: Path) -> subprocess.Popen[str]:
        folder.mkdir(exist_ok=True)
        return subprocess.Popen([*program, str(folder)], env=environment, stdout=subprocess.PIPE, text=True)

    left_alone = start(tmp_path / "alone")
    lines = list(left_alone.stdout)
    assert left_alone.wait() == 0
    assert not any("resuming" in line for line in lines)

    folder, killed, resumed, luck = tmp_path / "killed", 0, 0, random.Random(5)
    while killed < 3:
        job = start(folder)
        for line in job.stdout:
            resumed += "resuming" in line
            if ": epoch " in line and luck.random() < 0.4:
                time.sleep(luck.uniform(0, 0.1))
                break
        os.kill(job.pid, signal.SIGKILL)
        job.stdout.close()
        if job.wait() == 0:
            break
        killed += 1
    job = start(folder)
    resumed += sum("resuming" in line for line in job.stdout)
    assert job.wait() == 0
    assert killed >= 2
    assert resumed >= 2
    assert (
        store.describe(folder / "model")["tensors_hash"] == store.describe(tmp_path / "alone" / "model")["tensors_hash"]
    )
    assert {path.name for path in folder.iterdir()} == {"model"}
