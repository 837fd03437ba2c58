"""Measurement of a common offset between the spectra of a source and their objects.

The survey is searched around spectra beyond the match radius. The offsets of unrelated objects are distributed evenly; those of
the spectra's own objects form a peak at the offset of the two catalogues.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zmill.crossmatch.match import ARCSEC, Discs, Floats, Ints

REACH = 10.0
"""Largest offset that is searched for, arcsec; three match radii where that is more."""
SPECTRA = 4_000
"""Largest number of spectra of each source that are used."""
BIN = 0.25
"""Width of a bin of the offsets, arcsec; the peak is the highest sum of three by three bins."""
FEWEST, SHARE, SIGNIFICANCE = 20, 0.1, 8.0
"""Least objects in the peak, as a number and as a fraction of the spectra, and its least significance in standard deviations."""
MAD = 1.4826


@dataclass(frozen=True)
class Offset:
    """Median offset of spectra from their objects: arcsec east and north, the number of objects in the peak, the number of
    spectra used, and the scatter per axis in arcsec."""

    east: float
    north: float
    objects: int
    spectra: int
    scatter: float

    @property
    def size(self) -> float:
        """Its length in arcsec."""
        return float(np.hypot(self.east, self.north))

    def __str__(self) -> str:
        east, north = ("east" if self.east >= 0 else "west"), ("north" if self.north >= 0 else "south")
        return (
            f'{self.size:.2f}" from their objects on median ({abs(self.east):.2f}" {east}, {abs(self.north):.2f}" {north}; '
            f"measured on {self.objects:,} of {self.spectra:,} spectra)"
        )


def around(discs: Discs, source: Ints) -> tuple[Discs, Ints]:
    """An even selection of the spectra of each source, with the wide search radius, and the source of each."""
    chosen = [np.flatnonzero(source == one) for one in np.unique(source)]
    some = [rows[:: -(-len(rows) // SPECTRA)] for rows in chosen]
    rows = np.sort(np.concatenate([np.empty(0, np.int64), *some]))
    radius = np.maximum(REACH, 3 * discs.radius[rows])
    return Discs(discs.healpix29[rows], discs.ra[rows], discs.dec[rows], radius), source[rows]


def vectors(ra: Floats, dec: Floats, spectrum_ra: Floats, spectrum_dec: Floats) -> tuple[Floats, Floats]:
    """Offsets of spectra east and north of objects, in arcsec."""
    east = (spectrum_ra - ra + 180) % 360 - 180
    return np.radians(east) / ARCSEC * np.cos(np.radians(dec)), np.radians(spectrum_dec - dec) / ARCSEC


def measure(east: Floats, north: Floats, spectra: int, reach: float) -> Offset | None:
    """The common offset of the spectra from their objects; None where there is no significant peak.

    Parameters
    ----------
    east, north : (n,) offsets of all pairs of a spectrum and an object within `reach` arcsec.
    spectra : number of spectra used.
    """
    bins = int(np.ceil(2 * reach / BIN))
    edges = np.linspace(-reach, reach, bins + 1)
    counts = np.pad(np.histogram2d(east, north, [edges, edges])[0], 1)
    sums = np.sum([counts[i : i + bins, j : j + bins] for i in range(3) for j in range(3)], axis=0)
    middle = 0.5 * (edges[1:] + edges[:-1])
    inside = np.hypot(middle[:, None], middle[None, :]) <= reach
    chance = float(np.median(sums[inside]))
    x, y = np.unravel_index(int(np.argmax(sums)), sums.shape)
    there = float(sums[x, y])
    if there - chance < max(FEWEST, SHARE * spectra) or there < chance + SIGNIFICANCE * np.sqrt(chance + 1):
        return None
    center = np.array([middle[x], middle[y]])
    for _ in range(3):
        near = np.hypot(east - center[0], north - center[1]) <= 4 * BIN
        center = np.array([np.median(east[near]), np.median(north[near])])
    scatter = MAD * float(np.median(np.abs(np.concatenate([east[near] - center[0], north[near] - center[1]]))))
    return Offset(float(center[0]), float(center[1]), min(int(near.sum()), spectra), spectra, scatter)
