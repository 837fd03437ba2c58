"""Conformal intervals with a stated coverage: split-conformal, by bin of the reference magnitude.

A row's score is |2 PIT − 1|, the probability content of the smallest central interval of its density that holds the
true redshift. In a bin of n calibration rows, the ⌈(n + 1) c⌉-th smallest score is the content that the central interval
of a further row of that bin must have to hold the truth with probability c or more, however wrong the densities
are (Vovk et al. 2005, §2.2; by bin: Mondrian, §4.5; quantiles corrected on held-out rows as by Romano et al. 2019). Where n
is too small for that, the interval is the full grid.

The promise needs scores of rows that the calibration was not fitted on. They are those that `calibration_fit` finds fold by
fold, of each fifth of the rows under the calibration fitted on the other four (cross-conformal, Vovk 2015), so that no row is
lost to either purpose. It holds exactly for a calibration fitted on other rows; for the one that is used, fitted on all, as far
as five such calibrations, on four fifths of the rows, are as good. And it holds for rows like the calibration rows, not
for fainter ones or others that no spectrum was taken of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

COVERAGES = (0.68, 0.95)
"""Stated coverages, ascending."""
COLUMNS = ("z_c025", "z_c160", "z_c840", "z_c975")
"""Ends of the intervals, from left to right: of the 95 % one, of the 68 % one, and again."""
MIN_ROWS = 100
"""Fewest (effective) calibration rows in a bin of magnitude; with fewer there is one bin."""
MAX_BINS = 10

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Conformal:
    """Contents of central intervals by bin of the reference magnitude.

    edges : ascending magnitudes between neighboring bins, (bins − 1); the first and the last bin have no outer edge.
    contents : (bins + 1) × (coverages) probabilities in [0, 1]; the last row is for rows without a reference magnitude.
    """

    edges: tuple[float, ...]
    contents: tuple[tuple[float, ...], ...]

    @property
    def bins(self) -> int:
        """Bins, the one without a magnitude included."""
        return len(self.contents)

    def bin_of(self, magnitude: Tensor) -> Tensor:
        """(n,) number of the bin of each reference magnitude, which are on the CPU."""
        magnitude = magnitude.float()
        number = torch.zeros(len(magnitude), dtype=torch.int8)
        for edge in self.edges:  # far quicker than `torch.bucketize`, for edges are few
            number += (magnitude >= edge).view(torch.int8)
        return number.masked_fill_(~magnitude.isfinite(), self.bins - 1).int()

    def levels(self, device: torch.device | str = "cpu") -> Tensor:
        """(bins, 4) cumulative probabilities of the ends `COLUMNS`; beyond 0 and 1 where the interval is the full grid."""
        return levels(self.contents, device)

    def state(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "coverages": list(COVERAGES),
            "edges": list(self.edges),
            "contents": [list(content) for content in self.contents],
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Conformal:
        """The reverse of `state`."""
        return cls(
            edges=tuple(float(edge) for edge in state["edges"]),
            contents=tuple(tuple(float(value) for value in content) for content in state["contents"]),
        )


def fit(pit: FloatArray, magnitude: FloatArray, weight: FloatArray) -> Conformal:
    """From calibration rows.

    pit : (n,) PIT of their true redshifts under calibrations that they had no part in; 0 or 1 beyond the grid.
    magnitude : (n,) reference magnitudes, NaN where there is none. weight : (n,).
    """
    known = np.isfinite(magnitude)
    bins = int(np.clip(effective(weight[known]) // MIN_ROWS, 1, MAX_BINS))
    edges = np.quantile(magnitude[known], np.arange(1, bins) / bins) if known.any() else np.zeros(0)
    # Rounded like the magnitudes they are compared with.
    edges = np.unique(edges.astype(np.float32))
    number = np.where(known, np.searchsorted(edges, magnitude.astype(np.float32), side="right"), len(edges) + 1)
    score = np.abs(2 * pit - 1)
    contents = [
        tuple(content(score[number == bin_], weight[number == bin_], coverage) for coverage in COVERAGES)
        for bin_ in range(len(edges) + 2)
    ]
    return Conformal(tuple(float(edge) for edge in edges), tuple(contents))


def levels(contents: tuple[tuple[float, ...], ...], device: torch.device | str = "cpu") -> Tensor:
    """(n, 4) cumulative probabilities of the ends `COLUMNS` of central intervals of such contents, (n) × (coverages)."""
    content = torch.tensor(contents, dtype=torch.float32, device=device)
    half = torch.where(content < 1, 0.5 * content, torch.ones_like(content))
    return 0.5 + torch.cat([-half.flip(1), half], 1)


def ends(coverage: float) -> tuple[str, str]:
    """The two columns of an interval."""
    number = COVERAGES.index(coverage)
    return COLUMNS[len(COVERAGES) - 1 - number], COLUMNS[len(COVERAGES) + number]


def content(score: FloatArray, weight: FloatArray, coverage: float) -> float:
    """The smallest score that at least a fraction `coverage` of the rows plus one does not exceed; 1 if there is none.

    The additional row is the one to predict, with the mean weight (Tibshirani et al. 2019, eq. 7): its own is not known.
    """
    if not len(score):
        return 1.0
    order = np.argsort(score, kind="stable")
    reached = np.cumsum(weight[order])
    needed = coverage * (reached[-1] + weight.mean())
    index = int(np.searchsorted(reached, needed * (1 - 1e-12)))
    return float(score[order[index]]) if index < len(score) else 1.0


def effective(weight: FloatArray) -> float:
    """Effective number of rows, (Σw)² / Σw²."""
    return float(weight.sum() ** 2 / (weight**2).sum()) if len(weight) else 0.0
