"""SDSS and BOSS plates (`spPlate-*.fits`): images of flux, inverse variance and masks, and the table of the fibers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.io import fits

from zmill.catalog.files import ReadError
from zmill.survey.readers.base import Span
from zmill.survey.readers.image_spectra import ImageSpectra, section

ENDINGS = ()
CONTENT = ("fits",)
"""Formats that the file may have by its first bytes."""
IMAGES = {"flux": 0, "ivar": 1, "and_mask": 2, "or_mask": 3}
"""Column -> number of the extension."""
FIBERS, FIBER = 5, "FIBERID"
"""Number of the extension with the table of the fibers, and its column with the number of the fiber."""


class Reader(ImageSpectra):
    """One plate: the columns of its table of fibers (PLUGMAP), `flux`, `ivar`, `and_mask`, `or_mask`, and `loglam`.

    `loglam` is the decimal logarithm of the wavelength in angstrom, COEFF0 + COEFF1 * pixel; it is in vacuum, unless the header has
    VACUUM = F. `spec` names a spectrum: plate, MJD and fiber.
    """

    def __init__(self, path: Path, group: str | None) -> None:
        with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
            header = hdus[0].header
            if not {"COEFF0", "COEFF1", "NAXIS1"} <= set(header) or len(hdus) <= FIBERS:
                raise ReadError(
                    f"{path}: is no plate of SDSS or BOSS: expected COEFF0 and COEFF1 in the header and at least {FIBERS + 1} extensions"
                )
            shapes = {name: hdus[number].shape for name, number in IMAGES.items()}
            self._name = f"{int(header.get('PLATEID', 0)):04d}-{int(header.get('MJD', 0))}"
            pixels = int(header["NAXIS1"])
            self._loglam = float(header["COEFF0"]) + float(header["COEFF1"]) * np.arange(pixels)
            medium = "vacuum" if header.get("VACUUM", True) else "air"
            flux_unit = str(header.get("BUNIT", ""))
        types = {"flux": pa.float32(), "ivar": pa.float32(), "and_mask": pa.int32(), "or_mask": pa.int32()}
        lists = {name: pa.list_(kind, pixels) for name, kind in types.items()}
        units = {"loglam": f"log10(Angstrom) ({medium})", **({"flux": flux_unit} if flux_unit else {})}
        self.join(path, str(FIBERS), {**lists, "loglam": pa.list_(pa.float64(), pixels)}, units)
        self.require(shapes, dict.fromkeys(IMAGES, pixels))

        self.describe({**self.types, "spec": pa.string()}, self.unreadable)

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        if "spec" not in columns:
            yield from super().read(columns, batch_rows, span, numeric)
            return
        wanted = [*dict.fromkeys([*(name for name in columns if name != "spec"), FIBER])]
        for batch in super().read(wanted, batch_rows, span, numeric):
            found = dict(zip(wanted, batch.columns, strict=True))
            fibers = found[FIBER].cast(pa.int64()).to_pylist()
            found["spec"] = pa.array([f"{self._name}-{fiber:04d}" for fiber in fibers], pa.string())
            yield pa.RecordBatch.from_arrays([found[name] for name in columns], names=columns)

    def spectra(self, hdus: fits.HDUList, start: int, stop: int, columns: Collection[str]) -> dict[str, np.ndarray]:
        kinds = {"flux": np.float32, "ivar": np.float32}
        found = {
            name: section(hdus, IMAGES[name], start, stop).astype(kinds.get(name, np.int32))
            for name in columns
            if name in IMAGES
        }
        if "loglam" in columns:
            found["loglam"] = np.broadcast_to(self._loglam, (stop - start, len(self._loglam)))
        return found
