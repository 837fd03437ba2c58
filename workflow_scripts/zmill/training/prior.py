"""What is said of rows of which the photometry says little: the n(z) of the training rows, alone or mixed in.

A row without any measured band has the density n(z). Of a row with one measured band, and of one that is out of distribution, a
model may claim more than it can know: nothing of the kind was in what it was calibrated on. Its density is
(1 − w) f(z) + w n(z), f being the model's calibrated density. The share w is fitted on calibration rows of the same kind: for each
band, those in which it was measured, with all other bands taken away; and those that are out of distribution. It is the most
likely share, two rows more being given to it beforehand, one that n(z) alone explains and one that f alone does; and then, if the
central 68 and 95 % of the densities hold fewer rows than that by more than one standard error, the smallest larger share with which
they do not, or come nearest to it.
Intervals of stated coverage are found for each kind as for a bin of magnitude (`zmill.pdf.conformal`), the whole grid where there are
too few rows to promise anything; they are never narrower than those of the density itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmill.inputs.base import Labelled, evenly, n_of_z
from zmill.inputs.photometry.batch import MASKS, Photometry
from zmill.inputs.photometry.missing_bands import BandRemoval, MissingPattern
from zmill.kernels.simd import INTS, Code, Compiled, Shape, Value, a_block_at_least
from zmill.pdf import conformal
from zmill.pdf.grid import Grid
from zmill.pdf.values import cdf_at, density_at

MADE_ROWS = 1000
"""Calibration rows, at most, that all bands but one are taken away from, for each band."""
CHUNK = 512
"""Rows whose densities are held at a time."""
FLOOR = 1e-3
"""Density below which the likelihood no longer punishes: the weight of one certain but wrong row stays bounded."""
SHARES = 65
"""Shares that are tried where the most likely one holds too few rows."""

FloatArray = NDArray[np.float64]
Kinds = NDArray[np.int32]
"""(n,) kind of each row: USUAL, the number of its only measured band, `bands` (out of distribution) or `bands` + 1 (no band)."""
USUAL = -1


@dataclass(frozen=True)
class Prior:
    """n(z) of the training rows, its share in the densities of each kind of row, and contents of their intervals.

    density : (grid.size,) float32, normalized. shares : (kinds,) in [0, 1]. contents : (kinds) × (coverages) probabilities of central
    intervals that hold the true redshift as often as is stated. There are bands + 2 kinds: rows with that band alone, rows
    out of distribution, rows without a measured band.
    """

    density: Tensor
    shares: tuple[float, ...]
    contents: tuple[tuple[float, ...], ...]

    @property
    def bands(self) -> int:
        """Number of bands, and of the kind out of distribution."""
        return len(self.shares) - 2

    @property
    def nothing(self) -> int:
        """Number of the kind without a measured band."""
        return len(self.shares) - 1

    def kinds(self, batch: Photometry, far: NDArray[np.bool_]) -> Kinds:
        """(n,) kind of each row. far : (n,) whether no training row is near."""
        return kinds_of(only_band(batch), far, self.bands)

    def mixed(self, density: Tensor, kinds: Tensor) -> Tensor:
        """(n, grid.size) densities with the share of n(z) that belongs to their kinds (n,), none of which is USUAL."""
        prior = self.density.to(density)
        share = torch.tensor(self.shares, dtype=density.dtype, device=density.device)[kinds.long()][:, None]
        return torch.where(share < 1, density + share * (prior - density), prior)

    def levels(self, device: torch.device | str = "cpu") -> Tensor:
        """(kinds, 4) cumulative probabilities of the ends of intervals, as `Conformal.levels`."""
        return conformal.levels(self.contents, device)

    def of(self, rows: Labelled, grid: Grid) -> Prior:
        """The same with the n(z) of other training rows."""
        return replace(self, density=n_of_z(rows, grid))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON-ready facts."""
        return {"density": self.density}, {"shares": list(self.shares), "contents": [list(c) for c in self.contents]}

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Prior:
        """The reverse of `state`."""
        contents = tuple(tuple(float(value) for value in content) for content in facts["contents"])
        return cls(tensors["density"], tuple(float(share) for share in facts["shares"]), contents)


def fit(
    densities: Callable[[Photometry], Tensor],
    grid: Grid,
    train: Labelled,
    calib: Labelled,
    far: NDArray[np.bool_],
    removal: BandRemoval,
) -> Prior:
    """Learn n(z) on training rows, shares and intervals on calibration rows.

    Parameters
    ----------
    densities : calibrated densities (n, grid.size) of a batch.
    far : (n,) calibration rows that no training row is near to.
    removal : how rows of this survey lose bands.
    """
    density = n_of_z(train, grid)
    bands = range(len(train.photometry.bands))
    measured = calib.photometry.measured
    found = []
    for band in bands:
        rows = np.flatnonzero(measured[:, band])
        some = calib.rows(rows[evenly(len(rows), MADE_ROWS)] if len(rows) else rows)
        lost = MissingPattern(f"only {band}", tuple(other for other in bands if other != band))
        found.append(_fitted(densities, grid, density, replace(some, photometry=removal.apply(some.photometry, lost))))
    few = kinds_of(only_band(calib.photometry), far, len(bands))
    found.append(_fitted(densities, grid, density, calib.rows(few == len(bands))))
    found.append((1.0, _contents(_of_prior(density, grid, calib.z)[1], calib.weight)))
    return Prior(density, tuple(share for share, _ in found), tuple(contents for _, contents in found))


def _fitted(
    densities: Callable[[Photometry], Tensor], grid: Grid, prior: Tensor, rows: Labelled
) -> tuple[float, tuple[float, ...]]:
    """The share of n(z) in the densities of rows of one kind, and contents of their intervals."""
    f, below = _at(lambda part: densities(rows.photometry[part]), grid, rows.z)
    n, n_below = _of_prior(prior, grid, rows.z)
    known = np.isfinite(f)  # where a model has no answer, n(z) is the answer in any case
    f, below = np.where(known, f, n), np.where(known, below, n_below)
    share = _share(f, below, n, n_below, rows.weight)
    return share, _contents((1 - share) * below + share * n_below, rows.weight)


def _share(f: FloatArray, below: FloatArray, n: FloatArray, n_below: FloatArray, weight: FloatArray) -> float:
    """The share of n(z), from both densities at the true redshifts and both probabilities below them: (rows,) each."""
    from scipy.optimize import minimize_scalar  # not wanted where a run is only planned

    rows = conformal.effective(weight)
    weight = weight * (rows / weight.sum()) if rows else weight

    def unlikely(share: float) -> float:
        likelihood = np.log(np.maximum((1 - share) * f + share * n, FLOOR))
        return -float(weight @ likelihood + np.log(share) + np.log1p(-share))

    likeliest = float(minimize_scalar(unlikely, bounds=(1e-4, 1 - 1e-4), method="bounded").x)
    if not rows:
        return likeliest

    def spare(share: float) -> float:
        """The share of rows missing from the central part that misses the most, in excess of its standard error, as a negative
        number; 0 where none are missing."""
        score = np.abs(2 * ((1 - share) * below + share * n_below) - 1)
        return min(
            0.0, *(float(weight @ (score <= c)) / rows - c + (c * (1 - c) / rows) ** 0.5 for c in conformal.COVERAGES)
        )

    return float(max(np.linspace(likeliest, 1, SHARES), key=spare))  # the first of those that are as good


def _contents(pit: FloatArray, weight: FloatArray) -> tuple[float, ...]:
    """Contents of intervals that hold as many rows as is stated; none is narrower than the density itself says."""
    score = np.abs(2 * pit - 1)
    return tuple(max(coverage, conformal.content(score, weight, coverage)) for coverage in conformal.COVERAGES)


def _of_prior(prior: Tensor, grid: Grid, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    return _at(lambda part: prior.expand(len(z[part]), -1), grid, z)


def _at(densities: Callable[[slice], Tensor], grid: Grid, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(n,) densities of rows at their redshifts, and probabilities below them. densities : of some of the rows."""
    f, below = np.empty((2, len(z)))
    for start in range(0, len(z), CHUNK):
        part = slice(start, start + CHUNK)
        density, here = densities(part).double().cpu(), torch.as_tensor(z[part])
        f[part] = density_at(density, grid, here).numpy()
        below[part] = cdf_at(density, grid.cdf(density), grid, here).numpy()
    return f, below


def kinds_of(only: NDArray[np.int32], far: NDArray[np.bool_], bands: int) -> Kinds:
    """(n,) kinds of rows. only : as `only_band` says; far : whether no training row is near.

    In a survey of one band a row with that band is as usual as any.
    """
    kinds = np.where((only == USUAL) & far, np.int32(bands), only)
    if bands == 1:
        kinds = np.where(only == 0, np.where(far, np.int32(1), np.int32(USUAL)), kinds)
    return np.where(only == bands, np.int32(bands + 1), kinds).astype(np.int32)


def only_band(batch: Photometry) -> NDArray[np.int32]:
    """(n,) number of the only band that is measured; −1 where more are, `bands` where none is."""
    arrays = [a_block_at_least(array) for array in (batch.undetected, batch.unobserved, batch.imputed, batch.mag)]
    found = np.empty(len(arrays[0]), np.int32)
    _compiled(len(batch.bands))(*arrays, found, len(found))
    return found[: len(batch)]


@lru_cache(maxsize=8)
def _compiled(bands: int) -> Compiled:
    """`only_band`, of what `Photometry.measured` defines, in one pass."""
    arrays: dict[str, tuple[Any, Shape]] = dict.fromkeys(MASKS, (np.int32, ("rows",)))
    arrays |= {"mag": (np.float32, ("rows", bands)), "found": (np.int32, ("rows",))}
    code = Code(arrays, ("rows",))

    def block(row: Value) -> None:
        undetected, unobserved, imputed = (code.load(getattr(code, name), row, INTS) for name in MASKS)
        lost, none = undetected | unobserved | imputed, code.constant(0, INTS)
        measured, number = none, none
        for band in range(bands):
            magnitude = code.of_rows(code.mag, row, bands, band)
            there = (lost & 1 << band < 1) & magnitude.finite()
            measured, number = measured + there.where(1, none), there.where(band, number)
        one = (measured < 2).where(number, none - 1)
        code.store((measured < 1).where(bands, one), code.found, row)

    code.each_block(code.rows, block)
    return code.compiled()
