"""Distillation: one small network, the student, is trained to reproduce the densities of slower models, its teachers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from zmill.chunks import evenly
from zmill.networks.callbacks import Callback
from zmill.networks.inference import Range, ranges_of
from zmill.networks.losses import cross_entropy
from zmill.networks.network import Residual, ResidualMLP, Schedule, train

ROWS = 300_000
"""Size of the distillation set; with more training rows than this it is their number, up to `MAX_ROWS`."""
MAX_ROWS = 400_000
PER_ROW = 50
"""Largest size of the distillation set per training row."""
RANGE_ROWS = 20_000
"""Number of rows of the distillation set from which the ranges of the layers are measured (`ranges_of`)."""
PARTNERS = 20
"""The two rows of a blend are at most this many ranks in redshift apart."""
BLEND = 0.5
"""Largest fraction of an object's light that is replaced in a blend."""
NOISE = 0.5
"""Gaussian noise of this many times the errors is added to blends."""


class Student(Residual, Schedule):
    """Settings of the distilled network and of its training."""

    width: int = Field(256, ge=8, le=2**14)
    blocks: int = Field(1, ge=0, le=100)
    frequencies: int = Field(0, ge=0, le=1000)
    epochs: int = Field(5, ge=1, le=100_000)
    """Largest number of epochs over the distillation set."""
    batch: int = Field(512, ge=1, le=2**20)
    lr: float = Field(6e-3, gt=0, le=10)
    finetuning_epochs: int = Field(2, ge=1, le=100_000)
    """Largest number of epochs of fine-tuning, with teachers that were refitted on all rows."""
    finetuning_lr: float = Field(3e-3, gt=0, le=10)
    """Highest learning rate of fine-tuning."""
    ema: float = Field(0.998, ge=0, lt=1)


def distillation_rows(rows: int) -> int:
    """Size of the distillation set for a number of training rows."""
    return min(PER_ROW * rows, max(ROWS, min(rows, MAX_ROWS)))


def partners(own: Tensor, by_redshift: Tensor, rank: Tensor, generator: torch.Generator) -> Tensor:
    """(n,) numbers of the rows that rows `own` (n,) are blended with.

    by_redshift : numbers of all rows in order of redshift; rank : the place of each row in it.
    """
    steps = torch.randint(-PARTNERS, PARTNERS + 1, own.shape, generator=generator, device=own.device)
    return by_redshift[(rank[own] + steps).clamp(0, len(rank) - 1)]


def train_student(
    network: ResidualMLP,
    inputs: Tensor,
    targets: Tensor,
    score: Callable[[nn.Module], float] | None,
    settings: Student,
    seed: int,
    log: Callable[[str], None],
    callback: Callback,
) -> tuple[dict[str, Any], list[Range]]:
    """Train a student in place.

    Parameters
    ----------
    inputs, targets : (n, inputs) and (n, outputs) what it is given, and the probabilities of its teachers.
    score : of the student on validation rows, smaller is better; None: the student is fine-tuned, because its teachers were refitted.

    Returns
    -------
    Facts of the training (`train`), and the ranges of the inputs of its layers.
    """
    log(f"distillation: training a student of width {settings.width} on {len(inputs):,} predictions")
    if score is None:
        changes = {"epochs": settings.finetuning_epochs, "lr": settings.finetuning_lr}
        settings = settings.model_copy(update=changes)

    def loss(student: nn.Module, chosen: Tensor, _: torch.Generator) -> Tensor:
        return cross_entropy(student(inputs[chosen]).float(), targets[chosen].float()).mean(-1).sum()

    phase = "distilled" if score else "distilled, refitted"
    facts = train(
        network, len(inputs), 1, loss, score, settings, seed, log, callback=callback, phase=phase, parallel=True
    )
    some = torch.from_numpy(evenly(len(inputs), RANGE_ROWS))
    return facts, ranges_of(network, inputs[some][None])
