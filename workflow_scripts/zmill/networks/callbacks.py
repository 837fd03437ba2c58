"""The callback of a training: it may save checkpoints, from which a killed job resumes, or end the training early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

State = tuple[dict[str, Tensor], dict[str, Any]]
"""A state to save: named tensors, and a JSON-ready dictionary."""


class Callback:
    """Called after every epoch of a training; this base class does nothing.

    A model is trained in one phase or in several in sequence (networks, then the network that they are distilled into);
    each phase has a name.
    """

    earlier_seconds: float = 0.0
    """Training time in seconds of the killed jobs that this one resumes."""

    def validated(self, phase: str, epoch: int, score: float) -> None:
        """Receive the score on the validation rows after an epoch; smaller is better. An exception ends the training."""

    def save(self, phase: str, state: Callable[[], State], ended: bool = False) -> None:
        """Save the state of a phase, after every epoch and at its end, from which it can be resumed."""

    def saved(self, phase: str) -> State | None:
        """The last saved state of a phase; None if the phase starts from the beginning."""
        return None
