"""Positions on the sphere: HEALPix indices and unit vectors.

Snakemake reads this file whenever it starts: astropy, and cdshealpix with it, are imported where they are used.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEALPIX_COLUMN = "_healpix_29"
"""HATS: the NESTED HEALPix index at order 29; rows of a partition are sorted by it."""
HEALPIX_ORDER = 29


def healpix(ra: NDArray[np.float64], dec: NDArray[np.float64], order: int = HEALPIX_ORDER) -> NDArray[np.int64]:
    """NESTED HEALPix index of positions.

    Parameters
    ----------
    ra, dec : (n,) degrees, finite, |dec| <= 90.
    order : HEALPix order, 0 to 29.

    Returns
    -------
    (n,) int64.
    """
    if len(ra) == 0:
        return np.empty(0, np.int64)
    import astropy.units as u
    import cdshealpix
    from astropy.coordinates import Latitude, Longitude

    lon = Longitude(np.ascontiguousarray(ra, np.float64), u.deg)
    lat = Latitude(np.ascontiguousarray(dec, np.float64), u.deg)
    return np.asarray(cdshealpix.lonlat_to_healpix(lon, lat, order)).astype(np.int64)


def at_order(healpix29: NDArray[np.int64], order: int) -> NDArray[np.int64]:
    """The pixels of a lower order that hold pixels of order 29."""
    return healpix29 >> (2 * (HEALPIX_ORDER - order))


def unit_vectors(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors of positions in degrees: (n, 3) float64."""
    lon, lat = np.radians(ra), np.radians(dec)
    cos_lat = np.cos(lat)
    return np.stack([cos_lat * np.cos(lon), cos_lat * np.sin(lon), np.sin(lat)], axis=1)
