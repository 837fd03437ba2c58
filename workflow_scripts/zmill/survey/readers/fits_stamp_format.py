"""Stamps of one object a file (FITS): an image of all bands, or an extension per band, with the WCS of the first one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.io import fits

from zmill.catalog.files import ReadError
from zmill.columns import lists
from zmill.survey.readers.base import Span, Table

ENDINGS = ()
CONTENT = ("fits",)
"""Formats that the file may have by its first bytes."""
IMAGES = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)


class Reader(Table):
    """One stamp, as one row.

    Columns of arrays: an image each, by the name of its extension; `image` is the one without a name. Where the keyword BANDS names the
    planes of `image`, as in cutouts of the Legacy Surveys, each plane is a column of that name instead, so that no order is assumed.
    Other columns: `file`, the name of the file without its ending; `ra` and `dec`, the position of the center of the stamp in degrees;
    `pixel_scale` in arcsec and `flipped` (east is to the right of north), null without a WCS; and the keywords of the first header.
    """

    rows = 1

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        types: dict[str, pa.DataType] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        units: dict[str, str] = {}
        unreadable: dict[str, str] = {}
        self._place: dict[str, tuple[int, int | None]] = {}
        self._values: dict[str, Any] = {"file": path.name.split(".fits")[0].removesuffix(".fit")}
        with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
            for number, hdu in enumerate(hdus):
                if not isinstance(hdu, IMAGES) or not hdu.shape or 0 in hdu.shape:
                    continue
                name = hdu.name if hdu.name and hdu.name != "PRIMARY" else "image"
                if name in self._place or name in unreadable:
                    raise ReadError(
                        f"{path}: has several images named {name}: give each extension a name of its own (EXTNAME)"
                    )
                planes = str(hdu.header.get("BANDS", "")).strip()
                if name == "image" and len(hdu.shape) == 3 and len(planes) == hdu.shape[0] == len(set(planes)):
                    for plane, band in enumerate(planes):
                        self._add(band, (number, plane), hdu.shape[1:], hdu.header, types, shapes, units)
                    unreadable[name] = (
                        f"has the planes {', '.join(planes)}, by its keyword BANDS: write '{{band}}' for them"
                    )
                else:
                    self._add(name, (number, None), hdu.shape, hdu.header, types, shapes, units)
                if "ra" not in self._values:
                    self._values |= _position(hdu.header, hdu.shape)
            if not self._place:
                raise ReadError(f"{path}: holds no image")
            first = hdus[0].header
        keywords = {
            key: value for key, value in first.items() if key and key not in self._place and key not in self._values
        }
        self._values |= {key: value for key, value in keywords.items() if isinstance(value, str | int | float)}
        for name, value in self._values.items():
            types[name] = pa.array([value]).type if value is not None else pa.float64()
        self.describe(types, unreadable, shapes)
        self.describe_units(units)

    def _add(
        self,
        name: str,
        place: tuple[int, int | None],
        shape: tuple[int, ...],
        header: fits.Header,
        types: dict[str, pa.DataType],
        shapes: dict[str, tuple[int, ...]],
        units: dict[str, str],
    ) -> None:
        self._place[name], shapes[name] = place, tuple(shape)
        single = header["BITPIX"] in (8, 16, -32)
        types[name] = pa.list_(pa.float32() if single else pa.float64(), math.prod(shape))
        if "BUNIT" in header:
            units[name] = str(header["BUNIT"]).strip()

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        values = [name for name in columns if name not in self._place]
        found = {name: pa.array([self._values[name]], self.types[name]) for name in values}
        if len(values) == len(columns):
            yield pa.RecordBatch.from_arrays([found[name] for name in columns], names=columns)
            return
        with fits.open(self.path, memmap=False, lazy_load_hdus=True) as hdus:
            for name in set(columns) - set(values):
                number, plane = self._place[name]
                data = hdus[number].data if plane is None else hdus[number].data[plane]
                found[name] = lists(np.asarray(data, self.types[name].value_type.to_pandas_dtype()).reshape(1, -1))
        yield pa.RecordBatch.from_arrays([found[name] for name in columns], names=columns)


def _position(header: fits.Header, shape: tuple[int, ...]) -> dict[str, Any]:
    """Position of the center, width of a pixel and orientation by the WCS of a header; null without one."""
    from astropy.wcs import WCS, FITSFixedWarning  # takes long to import
    from astropy.wcs.utils import proj_plane_pixel_scales

    unknown = dict.fromkeys(("ra", "dec", "pixel_scale", "flipped"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            wcs = WCS(header, naxis=2)
            if not wcs.has_celestial:
                return unknown
            height, width = shape[-2:]
            center = wcs.pixel_to_world((width - 1) / 2, (height - 1) / 2).icrs
            scale = float(np.mean(proj_plane_pixel_scales(wcs))) * 3600
            flipped = bool(np.linalg.det(wcs.pixel_scale_matrix) > 0)
    except Exception:  # a WCS of any kind may stand there, and one that cannot be read gives no position
        return unknown
    return {"ra": float(center.ra.deg), "dec": float(center.dec.deg), "pixel_scale": scale, "flipped": flipped}
