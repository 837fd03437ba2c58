"""E(B-V) from HEALPix maps, against astropy's own coordinates."""

from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import Latitude, Longitude, SkyCoord
from astropy.io import fits
from cdshealpix import nested, ring

from zmill.inputs.photometry.extinction import read_map
from zmill.survey.readers import ReadError

NSIDE = 8


def write_map(path: Path, values: np.ndarray, **header: str) -> Path:
    cells = values.reshape(-1, 64).astype(np.float32)
    hdu = fits.BinTableHDU.from_columns([fits.Column("EBV", "64E", array=cells)])
    hdu.header.update({"PIXTYPE": "HEALPIX", "NSIDE": NSIDE, **header})
    hdu.writeto(path)
    return path


@pytest.mark.parametrize("ordering", ["RING", "NESTED"])
@pytest.mark.parametrize("frame", ["G", "C"])
def test_pixel_of_each_position(tmp_path: Path, ordering: str, frame: str) -> None:
    values = np.arange(12 * NSIDE**2, dtype=np.float32) / 1000
    path = write_map(tmp_path / f"{ordering}{frame}.fits", values, ORDERING=ordering, COORDSYS=frame)
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 500), rng.uniform(-90, 90, 500)
    place = SkyCoord(ra, dec, unit="deg")
    lon, lat = (place.galactic.l, place.galactic.b) if frame == "G" else (place.ra, place.dec)
    if ordering == "RING":
        pixel = ring.lonlat_to_healpix(Longitude(lon), Latitude(lat), NSIDE)
    else:
        pixel = nested.lonlat_to_healpix(Longitude(lon), Latitude(lat), 3)
    assert np.array_equal(read_map(path).at(ra, dec), values[np.asarray(pixel).astype(int)])


def test_galactic_pole_is_where_it_should_be(tmp_path: Path) -> None:
    _longitude, latitude = ring.healpix_to_lonlat(np.arange(12 * NSIDE**2), NSIDE)
    values = latitude.to_value(u.deg).astype(np.float32)
    path = write_map(tmp_path / "pole.fits", values, ORDERING="RING", COORDSYS="G")
    assert read_map(path).at(np.array([192.859508]), np.array([27.128336]))[0] > 80


def test_blank_pixels_are_nan_and_strange_maps_refused(tmp_path: Path) -> None:
    values = np.full(12 * NSIDE**2, -1.6375e30, np.float32)
    path = write_map(tmp_path / "blank.fits", values, ORDERING="RING", COORDSYS="C")
    assert np.isnan(read_map(path).at(np.array([1.0]), np.array([2.0]))[0])
    with pytest.raises(ReadError, match="COORDSYS = 'E'"):
        read_map(write_map(tmp_path / "e.fits", values, ORDERING="RING", COORDSYS="E"))
    with pytest.raises(ReadError, match="part of the sky"):
        read_map(write_map(tmp_path / "x.fits", values, INDXSCHM="EXPLICIT"))
    with pytest.raises(ReadError, match="no full-sky HEALPix map"):
        read_map(write_map(tmp_path / "short.fits", values[:128], ORDERING="RING"))
    (tmp_path / "text.fits").write_text("no map")
    with pytest.raises(ReadError, match="cannot be read as FITS"):
        read_map(tmp_path / "text.fits")
