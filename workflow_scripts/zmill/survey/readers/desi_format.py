"""DESI coadds and spectra: FIBERMAP, and WAVELENGTH, FLUX, IVAR and MASK of the arms B, R and Z, which are combined into one spectrum."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.io import fits

from zmill.catalog.files import ReadError
from zmill.survey.readers.image_spectra import ImageSpectra, section

ENDINGS = ()
CONTENT = ("fits",)
"""Formats that the file may have by its first bytes."""
ARMS = ("B", "R", "Z", "BRZ")
ALIGNED = 0.05
"""Largest difference of the wavelengths of two arms in their overlap, as a fraction of a pixel."""


class Reader(ImageSpectra):
    """One file `coadd-*.fits` or `spectra-*.fits`.

    The arms are combined where they overlap: fluxes are weighted by their inverse variances, of pixels whose `MASK` is 0. The columns
    are those of FIBERMAP, `flux`, `ivar`, `mask` (0 where a pixel of any arm is good) and `wavelength` (vacuum, angstrom).
    """

    def __init__(self, path: Path, group: str | None) -> None:
        with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
            names = [hdu.name for hdu in hdus]
            self._arms = [arm for arm in ARMS if f"{arm}_FLUX" in names]
            if "FIBERMAP" not in names or not self._arms:
                raise ReadError(
                    f"{path}: is no file of DESI spectra: expected the extensions FIBERMAP, B_WAVELENGTH, B_FLUX, B_IVAR, …; there is: "
                    f"{', '.join(names[1:]) or 'none'}"
                )
            needed = [f"{arm}_{what}" for arm in self._arms for what in ("WAVELENGTH", "FLUX", "IVAR")]
            if lacking := [name for name in needed if name not in names]:
                raise ReadError(f"{path}: lacks the extensions {', '.join(lacking)}")
            waves = [np.asarray(hdus[f"{arm}_WAVELENGTH"].data, np.float64) for arm in self._arms]
            units = {str(hdus[f"{arm}_WAVELENGTH"].header.get("BUNIT", "Angstrom")) for arm in self._arms}
            shapes = {name: hdus[name].shape for name in names if name.endswith(("_FLUX", "_IVAR", "_MASK"))}
            flux_unit = str(hdus[f"{self._arms[0]}_FLUX"].header.get("BUNIT", ""))
        self._masked = {name for name in shapes if name.endswith("_MASK")}
        self._wavelength, self._places = _common(path, self._arms, waves)
        pixels = len(self._wavelength)
        types = {"flux": pa.float32(), "ivar": pa.float32(), "mask": pa.int32(), "wavelength": pa.float64()}
        unit = f"{units.pop()} (vacuum)" if len(units) == 1 else ""
        self.join(
            path,
            "FIBERMAP",
            {name: pa.list_(kind, pixels) for name, kind in types.items()},
            {"wavelength": unit, **({"flux": flux_unit} if flux_unit else {})},
        )
        of_arms = dict(zip(self._arms, map(len, waves), strict=True))
        self.require(
            shapes, {name: of_arms[name.rpartition("_")[0]] for name in shapes if name.split("_")[0] in of_arms}
        )

    def spectra(self, hdus: fits.HDUList, start: int, stop: int, columns: Collection[str]) -> dict[str, np.ndarray]:
        shape = (stop - start, len(self._wavelength))
        found = {"wavelength": np.broadcast_to(self._wavelength, shape)} if "wavelength" in columns else {}
        if not set(columns) - {"wavelength"}:
            return found
        weighted, ivar = (np.zeros(shape, np.float64) for _ in range(2))
        mask = np.full(shape, -1, np.int32)  # all bits, until an arm has the pixel
        for arm, place in zip(self._arms, self._places, strict=True):
            values, weight = (
                section(hdus, f"{arm}_{what}", start, stop).astype(np.float64) for what in ("FLUX", "IVAR")
            )
            bits = np.zeros(values.shape, np.int32)
            if f"{arm}_MASK" in self._masked:
                bits = section(hdus, f"{arm}_MASK", start, stop).astype(np.int64).astype(np.int32)
            usable = (bits == 0) & np.isfinite(values) & (weight > 0) & np.isfinite(weight)
            weight = np.where(usable, weight, 0)
            weighted[:, place] += np.where(usable, values, 0) * weight
            ivar[:, place] += weight
            mask[:, place] &= bits
        flux = np.divide(weighted, ivar, out=np.zeros(shape), where=ivar > 0)
        mask[ivar > 0] = 0
        return {**found, "flux": flux.astype(np.float32), "ivar": ivar.astype(np.float32), "mask": mask}


def _common(path: Path, arms: list[str], waves: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The wavelengths of all arms, and the number of the pixel of each pixel of each arm.

    Raises
    ------
    ReadError
        Where the pixels of two arms do not coincide in their overlap.
    """
    step = float(np.median(np.concatenate([np.diff(wave) for wave in waves])))
    start = min(float(wave[0]) for wave in waves)
    places = [np.rint((wave - start) / step).astype(np.int64) for wave in waves]
    for arm, wave, place in zip(arms, waves, places, strict=True):
        if (np.abs(start + place * step - wave) > ALIGNED * step).any() or (np.diff(place) != 1).any():
            raise ReadError(
                f"{path}: the wavelengths of {arm} are not on one linear grid with those of the other arms ({', '.join(arms)}), so that "
                "arms cannot be combined pixel by pixel: coadd them first (desispec.coaddition.coadd_cameras)"
            )
    pixels = 1 + max(int(place[-1]) for place in places)
    return start + step * np.arange(pixels), places
