"""What spectroscopic surveys have in common: targets, redshifts that are wrong as real ones are, and a table of entries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.simulate.field import offset
from zmill.simulate.sky import Sky

Array = NDArray[np.float64]

LINES = np.array([3728.5, 4862.7, 5008.2, 6564.6, 1215.7])
"""[O II], H beta, [O III], H alpha, Lyman alpha: single lines that are taken for one another."""


@dataclass(frozen=True)
class Targets:
    """What a spectroscopic survey selects from: the sky's objects in the survey's order, and their measured rows.

    sky : n objects.
    object_id : (n,) the survey's identifiers.
    """

    sky: Sky
    object_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sky)


def spectroscopic(rng: np.random.Generator, z: Array, sigma: Array | float) -> Array:
    """Redshifts measured with an error of `sigma` times (1 + z)."""
    return z + (1 + z) * rng.normal(0, sigma, len(z))


def mistaken(rng: np.random.Generator, z: Array) -> Array:
    """Wrong redshifts: mostly one emission line taken for another, else a chance peak of the correlation."""
    true, taken = rng.integers(0, 4, (2, len(z)))
    taken = np.where(taken == true, (true + 1) % len(LINES), taken)
    confused = (1 + z) * LINES[true] / LINES[taken] - 1
    chance = rng.gamma(2.0, 0.4, len(z))
    use_chance = (rng.uniform(0, 1, len(z)) < 0.25) | (confused < 0.02) | (confused > 6) | (np.abs(confused - z) < 0.01)
    return np.where(use_chance, chance, confused)


def pointed(rng: np.random.Generator, sky: Sky, sigma: float, shift: tuple[float, float]) -> tuple[Array, Array]:
    """Positions in another catalogue: its own scatter `sigma` per axis and shift of the frame (east, north), arcsec."""
    east, north = rng.normal(0, sigma, (2, len(sky)))
    return offset(sky.ra, sky.dec, east + shift[0], north + shift[1])


def truth(source: str, entry: NDArray[np.str_], targets: Targets, rows: NDArray[np.int64], z: Array) -> pa.Table:
    """Which object each entry of a spectroscopic catalogue really is, and whether its redshift is right.

    Right is within 0.005 (1 + z) of the true one; entries without a redshift (NaN) are not right.
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
