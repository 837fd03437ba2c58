"""Common parts of spectroscopic surveys: targets, measured and wrong redshifts, and the true object of each entry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.simulate.field import offset
from zmill.simulate.sky import Sky

Array = NDArray[np.float64]

LINES = np.array([3728.5, 4862.7, 5008.2, 6564.6, 1215.7])
"""[O II], H beta, [O III], H alpha, Lyman alpha: single lines that are mistaken for each other."""


@dataclass(frozen=True)
class Targets:
    """The objects that a spectroscopic survey selects from, in the order of the imaging survey.

    sky : n objects.
    object_id : (n,) the survey's identifiers.
    """

    sky: Sky
    object_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sky)


def spectroscopic(rng: np.random.Generator, z: Array, sigma: Array | float) -> Array:
    """Redshifts measured with an error of standard deviation `sigma` (1 + z)."""
    return z + (1 + z) * rng.normal(0, sigma, len(z))


def mistaken(rng: np.random.Generator, z: Array) -> Array:
    """Wrong redshifts: mostly an emission line mistaken for another, otherwise a random peak of the cross-correlation."""
    true, taken = rng.integers(0, 4, (2, len(z)))
    taken = np.where(taken == true, (true + 1) % len(LINES), taken)
    confused = (1 + z) * LINES[true] / LINES[taken] - 1
    chance = rng.gamma(2.0, 0.4, len(z))
    use_chance = (rng.uniform(0, 1, len(z)) < 0.25) | (confused < 0.02) | (confused > 6) | (np.abs(confused - z) < 0.01)
    return np.where(use_chance, chance, confused)


def pointed(rng: np.random.Generator, sky: Sky, sigma: float, shift: tuple[float, float]) -> tuple[Array, Array]:
    """Positions in another catalogue, with scatter `sigma` per axis and an offset of its frame (east, north), arcsec."""
    east, north = rng.normal(0, sigma, (2, len(sky)))
    return offset(sky.ra, sky.dec, east + shift[0], north + shift[1])


def truth(source: str, entry: NDArray[np.str_], targets: Targets, rows: NDArray[np.int64], z: Array) -> pa.Table:
    """The true object of each entry of a spectroscopic catalogue, and whether its redshift is correct.

    A redshift is correct within 0.005 (1 + z) of the true one; entries without a redshift (NaN) are not correct.
    """
    true = targets.sky.z[rows]
    return pa.table(
        {
            "source": pa.array([source] * len(rows)),
            "entry": pa.array(entry),
            "object_id": targets.object_id[rows],
            "z_true": true,
            "correct": np.abs(z - true) < 0.005 * (1 + true),
        }
    )
