"""E(B-V) along the line of sight, from a HEALPix map that the user names."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import astropy.units as u
import numpy as np
from astropy.coordinates import Galactic, Latitude, Longitude, SkyCoord
from astropy.io import fits
from cdshealpix import nested, ring
from numpy.typing import NDArray

from zmill.catalog.files import ReadError
from zmill.catalog.sky import unit_vectors

LOWEST = -1e30
"""HEALPix writes a pixel without a value as -1.6375e30."""


class EbvMap:
    """A map of E(B-V) over the whole sky, in magnitudes.

    Parameters
    ----------
    values : (12 nside²,) E(B-V) per pixel, NaN where unknown.
    ordering : order of the pixels.
    frame : coordinate frame of the map: `G` Galactic or `C` equatorial (ICRS).
    """

    def __init__(self, values: NDArray[np.float32], ordering: Literal["RING", "NESTED"], frame: str) -> None:
        self.nside = round((len(values) / 12) ** 0.5)
        if 12 * self.nside**2 != len(values):
            raise ValueError(f"{len(values)} values are no full-sky HEALPix map (12 nside²)")
        self.values, self.ordering, self.frame = values, ordering, frame

    def at(self, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float32]:
        """E(B-V) of the pixel that contains each position.

        Parameters
        ----------
        ra, dec : (n,) ICRS degrees.
        """
        if len(ra) == 0:
            return np.empty(0, np.float32)
        lon, lat = _galactic(ra, dec) if self.frame == "G" else (ra, dec)
        longitude, latitude = Longitude(lon, u.deg), Latitude(lat, u.deg)
        if self.ordering == "NESTED":
            pixel = nested.lonlat_to_healpix(longitude, latitude, int(np.log2(self.nside)))
        else:
            pixel = ring.lonlat_to_healpix(longitude, latitude, self.nside)
        return self.values[np.asarray(pixel).astype(np.int64)]


@lru_cache(maxsize=1)
def read_map(path: Path) -> EbvMap:
    """Read a HEALPix map: the first column of the first table, with ORDERING and COORDSYS (equatorial if absent).

    Raises
    ------
    ReadError
        Where the file is no full-sky HEALPix map in Galactic or equatorial coordinates.
    """
    try:
        with fits.open(path, memmap=False) as hdus:
            hdu = next((h for h in hdus if isinstance(h, fits.BinTableHDU)), None)
            if hdu is None:
                raise ReadError(f"{path}: has no binary table, as a HEALPix map has")
            ordering = str(hdu.header.get("ORDERING", "RING")).strip().upper()
            frame = str(hdu.header.get("COORDSYS", "C")).strip().upper()[:1]
            if str(hdu.header.get("INDXSCHM", "IMPLICIT")).strip().upper() == "EXPLICIT":
                raise ReadError(f"{path}: holds a part of the sky (INDXSCHM = EXPLICIT); give a full-sky map")
            values = np.asarray(hdu.data.field(0), np.float32).ravel()
    except OSError as error:
        raise ReadError(f"{path}: cannot be read as FITS: {error}") from error
    if ordering not in ("RING", "NESTED", "NEST") or frame not in ("G", "C"):
        raise ReadError(
            f"{path}: ORDERING = {ordering!r}, COORDSYS = {frame!r}; expected RING or NESTED, G (Galactic) or C (equatorial)"
        )
    values[values < LOWEST] = np.nan
    try:
        return EbvMap(values, "RING" if ordering == "RING" else "NESTED", frame)
    except ValueError as error:
        raise ReadError(f"{path}: {error}") from None


@lru_cache(maxsize=1)
def _to_galactic() -> NDArray[np.float64]:
    """The rotation from ICRS to Galactic unit vectors: (3, 3)."""
    axes = SkyCoord(x=[1, 0, 0], y=[0, 1, 0], z=[0, 0, 1], representation_type="cartesian", frame="icrs")
    return np.asarray(axes.transform_to(Galactic()).cartesian.xyz.value)


def _galactic(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y, z = _to_galactic() @ unit_vectors(ra, dec).T
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))
