"""What looks on while networks are trained: it may keep what a killed job goes on from, or end a training early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Something as it is saved: named tensors, and a JSON-ready dictionary."""


class Watch:
    """Looks on, epoch by epoch; this one does nothing.

    A model trains in one phase or in several, one after the other (networks, then the network that it is distilled
    into); each has a name of its own.
    """

    earlier_seconds: float = 0.0
    """Seconds that killed jobs trained before this one went on."""

    def look(self, phase: str, epoch: int, score: float) -> None:
        """Take the score on the validation rows after an epoch, smaller is better. Raising ends the training."""

    def keep(self, phase: str, state: Callable[[], State], ended: bool = False) -> None:
        """Take what the rest of a phase depends on, after every epoch and, as its result, at its end."""

    def kept(self, phase: str) -> State | None:
        """What was last kept of a phase, to go on from; None where it starts afresh."""
        return None
