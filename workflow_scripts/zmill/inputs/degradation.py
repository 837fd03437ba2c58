"""Removal of parts of the data, for the missing-data tests and for the densities of rows with little information."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zmill.inputs.base import Batch

AS_OBSERVED = "as observed"
"""Name of the pattern that removes nothing."""


class Pattern(Protocol):
    """A part of the data that a degradation takes away."""

    @property
    def name(self) -> str:
        """Its name in the tables of missing-data tests."""


@dataclass(frozen=True)
class _AsObserved:
    name: str = AS_OBSERVED


class Degradation:
    """Removal of parts of the data from rows, as the survey would have written rows without them; here there are no such parts."""

    def tests(self, rows: Batch) -> Sequence[Pattern]:
        """The patterns of the missing-data tests; the first one leaves rows as observed."""
        return [_AsObserved()]

    def least(self, rows: Batch) -> Sequence[tuple[Pattern, NDArray[np.bool_]]]:
        """For each class of rows with little information: the pattern that makes rows of it, and (n,) rows that it can be applied to."""
        return []

    def concerns(self, rows: Any, pattern: Any) -> NDArray[np.bool_]:
        """(n,) whether the pattern changes the row and leaves something of it; True for all rows of the pattern as observed."""
        return np.ones(len(rows), bool)

    def apply(self, rows: Any, pattern: Any) -> Any:
        """The rows as the clean stage would have written them."""
        return rows
