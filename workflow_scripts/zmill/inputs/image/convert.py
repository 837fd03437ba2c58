"""Stamps of a survey's files as fluxes and inverse variances of one shape, and the faults of single stamps."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.catalog.files import ReadError
from zmill.columns import Lists, floats
from zmill.inputs.image.settings import ImageSettings

FAULTS = {
    "image_missing": "there is no stamp",
    "image_repeated": "several stamps have the row's identifier; the first one is used",
    "image_elsewhere": "the row is outside of the stamp with its identifier, by the WCS of the stamp; there is no image",
    "image_other_scale": "the pixels of a stamp have another width than image.pixel_scale, by its WCS; there is no image",
    "image_flipped": "a stamp is mirrored, by its WCS (east is to the right of north); it is used as it is",
    "image_wrong_shape": "a stamp has another number of pixels than image.bands and image.size; there is no image",
    "image_band_missing": "a stamp lacks a band; this band is masked",
    "pixel_not_finite": "pixels are NaN, infinite, or one of image.missing; they are masked",
    "image_constant": "all pixels of a band have one value; this band is masked",
    "image_padded": "the outermost pixels of a band have one value, as those beyond the edge of an image; they are masked",
    "image_ivar_impossible": "inverse variances are negative, infinite or beyond the range of 32-bit numbers (image.flux_unit), or errors "
    "negative; these pixels or bands are masked",
    "image_masked": "every pixel is masked or not a number",
}
"""Fault -> its meaning."""
QUIET = ("pixel_not_finite", "image_padded", "image_band_missing", "image_flipped")
"""Faults that good surveys have, too."""
ALL_ALIKE = 20
"""If all of at least so many stamps have the same fault of shape, the definition is wrong, and not the stamps."""
TINY, HUGE = 1e-37, 1e38
"""Range of positive 32-bit numbers with full precision."""
LEAST_NOISE = 1e-4
"""Estimated errors are at least this fraction of the largest flux of a band, for stamps without noise."""
LEAST_PIXELS = 4
"""Of a frame with fewer good pixels than these, no error is estimated."""
BORDER = 8
"""The errors of stamps without errors are estimated from a frame of this fraction of the size (its inverse), of one pixel at least."""
MARKS = ("image_repeated", "image_elsewhere", "image_other_scale", "image_flipped")
"""Faults that the lookup of stamps in other files (`zmill.inputs.image.sources`) finds. It adds a logical column of each to a batch."""
NO_USE = ("image_elsewhere", "image_other_scale")
"""Those of them after which there is no image."""
BEYOND = "image_beyond"
"""Logical column that a lookup adds: the stamp reaches beyond the edge of its image."""

Booleans = NDArray[np.bool_]
Array = NDArray[np.float32]


class Conversion:
    """Conversion of a batch of n rows.

    Attributes
    ----------
    flux : (n, bands, size, size) float32; 0 in masked pixels.
    ivar : (n, bands, size, size) or (n, bands, 1, 1) float32, as `noise` of the section; 0 is the mask.
    good : (n, bands, size, size) whether a pixel is measured. psf : (n, bands) float32 in arcsec. edge : (n,) bool.
    faults : fault -> (n,) rows that have it.
    """

    def __init__(self, batch: pa.RecordBatch, section: ImageSettings) -> None:
        self.section, self.rows = section, batch.num_rows
        self.faults: dict[str, Booleans] = {}
        self._typical: list[float] = []  # typical errors of stamps most of which is beyond 32-bit numbers
        flux, there = self._planes(batch, "flux")
        good = np.isfinite(flux)
        for value in section.missing:
            good &= flux != np.asarray(value, flux.dtype)
        planes = there[:, :, None, None]
        self._mark("pixel_not_finite", (~good & planes).any(axis=(1, 2, 3)))
        good &= planes
        flux = np.where(good, flux, flux.dtype.type(0))
        self._refuse_constant(flux, good)
        if section.mask:
            good &= ~self._masked(batch)
        if section.noise_key is None:
            if not section.mask:
                self._refuse_padding(flux, good)
            ivar = _estimated(flux, good)
        else:
            ivar = self._inverse_variances(batch, section.noise_key, good)
        good &= ivar > 0
        self._keep(flux, ivar, good)
        self.edge = self._edges(batch)
        self.psf = self._psf(batch)
        empty = ~self.good.any(axis=(1, 2, 3))
        known = np.logical_or.reduce(
            [
                np.zeros(self.rows, bool),
                *(
                    self.faults.get(name, np.zeros(self.rows, bool))
                    for name in ("image_missing", "image_wrong_shape", "image_constant", *NO_USE)
                ),
            ]
        )
        self._mark("image_masked", empty & ~known)

    def _mark(self, fault: str, rows: Any) -> None:
        """Set a fault of rows (n,)."""
        if rows.any():
            self.faults[fault] = self.faults.get(fault, np.zeros(self.rows, bool)) | rows

    def _planes(self, batch: pa.RecordBatch, key: Literal["flux"]) -> tuple[NDArray[Any], Booleans]:
        """(n, bands, size, size) the fluxes, 0 where there is none, and (n, bands) whether there is a plane.

        Raises
        ------
        ReadError
            Where no stamp has the shape of the definition.
        """
        names = self.section.columns(key)
        lists = [Lists.of(batch.column(name)) for name in names]
        lengths = np.stack([one.length for one in lists], axis=1)
        unusable = np.logical_or.reduce([_marked(batch, name) for name in NO_USE])
        lengths[unusable] = 0
        wanted = self._length(names)
        self._refuse_lengths(batch, names, lengths, wanted)
        wrong = ((lengths != wanted) & (lengths > 0)).any(axis=1)
        missing = (lengths == 0).all(axis=1)
        self._mark("image_wrong_shape", wrong)
        self._mark("image_missing", missing & ~unusable)
        for name in MARKS:
            self._mark(name, _marked(batch, name))
        self._mark("image_band_missing", ~missing & ~wrong & (lengths == 0).any(axis=1))
        there = (lengths == wanted) & ~wrong[:, None]
        found = self._cube(lists, there, batch)
        return found, there if len(names) > 1 else np.repeat(there, len(self.section.bands), axis=1)

    def _length(self, names: list[str]) -> int:
        """Numbers per row of each of the columns."""
        bands, size, _ = self.section.shape
        return size * size * (bands if len(names) == 1 else 1)

    def _cube(self, lists: list[Lists], there: Booleans, batch: pa.RecordBatch) -> NDArray[Any]:
        """(n, bands, size, size) the numbers of columns where they are there; else 0."""
        bands, size, _ = self.section.shape
        length = self._length([""] * len(lists))
        kind = (
            np.float64
            if any(one.values.dtype in (np.float64, np.int64, np.uint64, np.int32, np.uint32) for one in lists)
            else np.float32
        )
        found = np.zeros((self.rows, bands, size, size), kind)
        for number, one in enumerate(lists):
            rows = np.flatnonzero(there[:, number])
            values = one.rows(rows, length)
            if len(lists) > 1:
                found[rows, number] = values.reshape(-1, size, size)
            elif self.section.order == "bands_last":
                found[rows] = values.reshape(-1, size, size, bands).transpose(0, 3, 1, 2)
            else:
                found[rows] = values.reshape(-1, bands, size, size)
        return found

    def _refuse_lengths(self, batch: pa.RecordBatch, names: list[str], lengths: NDArray[np.int64], wanted: int) -> None:
        """Refuse files none of whose stamps has the shape of the definition."""
        for name, length in zip(names, lengths.T, strict=True):
            some = length[length > 0]
            fixed = pa.types.is_fixed_size_list(batch.column(name).type)
            if len(some) and (some != wanted).all() and (fixed or len(some) >= ALL_ALIKE):
                raise ReadError(
                    f"column {name!r} (image.flux) has {some[0]} values per row, but {self.section_says(len(names))}"
                )

    def section_says(self, columns: int) -> str:
        """What the definition expects of a column, as a clause."""
        bands, size, _ = self.section.shape
        if columns > 1:
            return f"image.size makes planes of {size} x {size} = {size * size}"
        return f"image.bands and image.size make stamps of {bands} x {size} x {size} = {bands * size * size}"

    def _refuse_constant(self, flux: NDArray[Any], good: Booleans) -> None:
        """Mask bands all of whose pixels have one value."""
        low = np.where(good, flux, np.inf).min(axis=(2, 3))
        constant = low == np.where(good, flux, -np.inf).max(axis=(2, 3))
        self._mark("image_constant", constant.any(axis=1))
        good[constant] = False

    def _refuse_padding(self, flux: NDArray[Any], good: Booleans) -> None:
        """Mask complete outer rows and columns that have the value of a corner, one after the other from outside.

        Only where the files say nothing of single pixels: else they say which ones are bad.
        """
        padded = np.zeros(good.shape, bool)
        for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
            same = (flux == flux[:, :, [[row]], [[column]]]) | ~good
            along = same.all(axis=3), same.all(axis=2)  # (n, bands, size) complete rows, complete columns
            rows = np.logical_and.accumulate(along[0][:, :, :: 1 if row == 0 else -1], axis=2)[
                :, :, :: 1 if row == 0 else -1
            ]
            columns = np.logical_and.accumulate(along[1][:, :, :: 1 if column == 0 else -1], axis=2)[
                :, :, :: 1 if column == 0 else -1
            ]
            padded |= rows[:, :, :, None] | columns[:, :, None, :]
        padded &= good
        self._mark("image_padded", padded.any(axis=(1, 2, 3)))
        good &= ~padded

    def _masked(self, batch: pa.RecordBatch) -> Booleans:
        """(n, bands, size, size) pixels that the mask of the files rejects; all of rows without a mask of the right length."""
        names = self.section.columns("mask")
        lists = [Lists.of(batch.column(name)) for name in names]
        there = np.stack([one.length == self._length(names) for one in lists], axis=1)
        self._mark("image_wrong_shape", (~there).any(axis=1) & ~self._absent)
        mask = self._cube(lists, there, batch)
        if self.section.mask_bits is not None:
            bits = np.bitwise_or.reduce([np.int64(1) << bit for bit in self.section.mask_bits] or [np.int64(0)])
            found = (np.clip(np.nan_to_num(mask), -(2.0**62), 2.0**62).astype(np.int64) & bits) != 0
        else:
            found = np.isnan(mask) | ((mask == 0) if self.section.mask_means == "good" else (mask != 0))
        known = there if len(names) > 1 else np.repeat(there, len(self.section.bands), axis=1)
        return np.asarray(found | ~known[:, :, None, None])

    @property
    def _absent(self) -> Booleans:
        """(n,) rows without a stamp, for a reason that is known."""
        names = ("image_missing", "image_wrong_shape", *NO_USE)
        return np.logical_or.reduce(
            [np.zeros(self.rows, bool), *(self.faults[name] for name in names if name in self.faults)]
        )

    def _inverse_variances(
        self, batch: pa.RecordBatch, key: Literal["ivar", "error"], good: Booleans
    ) -> NDArray[np.float64]:
        """(n, bands, size, size) or (n, bands, 1, 1) inverse variances by the files; 0 where they cannot be used."""
        names, (bands, _, _) = self.section.columns(key), self.section.shape
        lists = [Lists.of(batch.column(name)) for name in names]
        lengths = np.stack([one.length for one in lists], axis=1)
        per_band = len(names) == 1 and bool((lengths == bands).any()) and bands != self._length(names)
        length = bands if per_band else self._length(names)
        some = lengths[lengths > 0]
        if len(some) and (some != length).all():
            raise ReadError(
                f"column {names[0]!r} (image.{key}) has {some[0]} values per row: expected one per band ({bands}), or as many as the fluxes"
            )
        if not per_band and self.section.noise == "band":
            raise ReadError(
                f"column {names[0]!r} (image.{key}) has a value per pixel, but image.noise is band, which stores one per band: write noise: pixel"
            )
        there = lengths == length
        self._mark("image_wrong_shape", (~there).any(axis=1) & ~self._absent)
        if per_band:
            values = np.zeros((self.rows, bands))
            rows = np.flatnonzero(there[:, 0])
            values[rows] = lists[0].rows(rows, bands)
            values = values[:, :, None, None]
        else:
            values = self._cube(lists, there, batch).astype(np.float64)
        wrong = (values < 0) | np.isinf(values)
        self._mark("image_ivar_impossible", (wrong & good.any(axis=(2, 3), keepdims=True)).any(axis=(1, 2, 3)))
        usable = (values > 0) & (values < np.inf)
        if key == "error":
            with np.errstate(divide="ignore", over="ignore"):  # what is beyond 32-bit numbers is masked and counted
                return np.divide(1.0, values * values, out=np.zeros(values.shape), where=usable)
        return np.where(usable, values, 0.0)

    def _keep(self, flux: NDArray[Any], ivar: NDArray[np.float64], good: Booleans) -> None:
        """Keep stamps as 32-bit numbers in `flux_unit`; what is beyond their range is masked and counted.

        Raises
        ------
        ReadError
            Where most stamps are beyond it.
        """
        unit = np.array(self.section.units)[None, :, None, None]
        with np.errstate(over="ignore"):
            flux = flux / unit if (unit != 1).any() else flux
            ivar = ivar * unit**2
        beyond = good & ((ivar < TINY) | (ivar > HUGE) | (np.abs(flux) > HUGE))
        if beyond.any():
            most = beyond.sum(axis=(1, 2, 3)) > good.sum(axis=(1, 2, 3)) / 2
            self._mark("image_ivar_impossible", beyond.any(axis=(1, 2, 3)))
            if most.sum() >= max(ALL_ALIKE, self.rows / 2):
                typical = float(np.median(1 / np.sqrt((ivar / unit**2)[most][(ivar > 0)[most]])))
                raise ReadError(
                    f"column {self.section.columns('flux')[0]!r} (image.flux): errors of about {typical:.1g} are beyond the range of 32-bit "
                    f"numbers once squared and inverted: write image: {{flux_unit: {10.0 ** round(np.log10(typical)):.0e}}}"
                )
            good = good & ~beyond
        absent = self._absent[:, None, None, None]
        self.good = good & ~absent
        self.flux = np.where(self.good, flux, 0).astype(np.float32)
        if self.section.noise == "pixel":
            self.ivar = np.where(self.good, ivar, 0).astype(np.float32)
        else:
            self.ivar = np.where(self.good.any(axis=(2, 3), keepdims=True), ivar, 0).astype(np.float32)

    def _edges(self, batch: pa.RecordBatch) -> Booleans:
        """(n,) whether a complete outer row or column of a band is masked that has other good pixels; or what the files say."""
        if self.section.edge:
            column = batch.column(self.section.edge)
            return np.asarray(column.cast(pa.bool_()).fill_null(False).to_numpy(zero_copy_only=False))
        some = self.good.any(axis=(2, 3))
        sides = [self.good[:, :, 0], self.good[:, :, -1], self.good[:, :, :, 0], self.good[:, :, :, -1]]
        lost = np.logical_or.reduce([~side.any(axis=2) for side in sides])
        return np.asarray((lost & some).any(axis=1) | _marked(batch, BEYOND))

    def _psf(self, batch: pa.RecordBatch) -> Array:
        given, (bands, _, _) = self.section.psf_fwhm, self.section.shape
        if not isinstance(given, str):
            widths = [given[band] if isinstance(given, dict) else given or np.nan for band in self.section.bands]
            return np.tile(np.array(widths, np.float32), (self.rows, 1))
        found = np.full((self.rows, bands), np.nan, np.float32)
        if "{band}" in given:
            for number, band in enumerate(self.section.bands):
                found[:, number] = floats(batch.column(given.replace("{band}", band)))
        else:
            lists = Lists.of(batch.column(given))
            rows = np.flatnonzero(lists.length == bands)
            if not len(rows) and (lists.length > 0).any():
                raise ReadError(
                    f"column {given!r} (image.psf_fwhm) has {lists.length.max()} values per row, expected one per band ({bands})"
                )
            found[rows] = lists.rows(rows, bands)
        return np.where(found > 0, found, np.float32(np.nan))


def _marked(batch: pa.RecordBatch, name: str) -> Booleans:
    """(n,) a logical column that a lookup has added; False where there is none."""
    if name not in batch.schema.names:
        return np.zeros(batch.num_rows, bool)
    return np.asarray(batch.column(name).to_numpy(zero_copy_only=False))


def frame(size: int) -> Booleans:
    """(size, size) the outermost pixels, in which the noise of the sky is measured."""
    width = max(1, size // BORDER)
    found = np.ones((size, size), bool)
    found[width:-width, width:-width] = False
    return found


def _estimated(flux: NDArray[Any], good: Booleans) -> NDArray[np.float64]:
    """(n, bands, 1, 1) inverse variances of stamps without errors, from the outermost pixels of each band.

    The standard deviation is 1.4826 times the median absolute deviation, which neighbors in the frame change little.
    """
    values = np.where(good, flux, np.nan)[:, :, frame(flux.shape[-1])]
    few = np.count_nonzero(np.isfinite(values), axis=2) < LEAST_PIXELS
    sigma = _deviation(values)
    if few.any():  # so much of the frame is masked that all pixels are taken
        sigma[few] = _deviation(np.where(good, flux, np.nan)[few].reshape(int(few.sum()), -1))
    some = np.isfinite(sigma)
    sigma = np.fmax(sigma, LEAST_NOISE * np.abs(np.where(good, flux, 0)).max(axis=(2, 3))).astype(np.float64)
    return np.divide(1.0, sigma**2, out=np.zeros(sigma.shape), where=(sigma > 0) & some)[:, :, None, None]


def _deviation(values: NDArray[Any]) -> NDArray[Any]:
    """1.4826 times the median absolute deviation over the last axis, of values that are not NaN; NaN without any."""
    center = _median(values)[..., None]
    return np.asarray(1.4826 * _median(np.abs(values - center)))


def _median(values: NDArray[Any]) -> NDArray[Any]:
    """Median over the last axis of values that are not NaN; NaN without any. np.nanmedian loops over the rows."""
    ordered = np.sort(values, axis=-1)  # NaN at the end
    count = np.count_nonzero(np.isfinite(ordered), axis=-1)[..., None]
    lower, upper = (
        np.take_along_axis(ordered, place, axis=-1)
        for place in (np.maximum(count - 1, 0) // 2, np.minimum(count // 2, values.shape[-1] - 1))
    )
    return np.asarray((lower + upper) / 2)[..., 0]
