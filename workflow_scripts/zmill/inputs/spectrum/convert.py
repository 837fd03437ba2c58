"""Spectra of a survey's files as fluxes and inverse variances on the survey's grid, and the faults of single spectra."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zmill.catalog.files import ReadError
from zmill.columns import Lists
from zmill.inputs.spectrum.continuum import row_median
from zmill.inputs.spectrum.grid import WavelengthGrid, air_to_vacuum, edges_of
from zmill.inputs.spectrum.rebin import Rebinning
from zmill.inputs.spectrum.settings import SpectrumSettings
from zmill.inputs.spectrum.units import HIGHEST, LOWEST, is_plausible, wrong_range

FAULTS = {
    "spectrum_missing": "there is no flux",
    "spectrum_wrong_length": "flux, wavelengths, errors and mask differ in their number of values; the spectrum is empty",
    "wavelengths_unsorted": "wavelengths are missing or do not increase; the spectrum is empty",
    "wavelengths_implausible": f"wavelengths are not between {LOWEST:g} and {HIGHEST:g} angstrom; the spectrum is empty: check "
    "spectrum.wavelength",
    "wavelengths_outside_grid": "no wavelength is on spectrum.grid; the spectrum is empty",
    "ivar_impossible": "inverse variances are negative, infinite or beyond the range of 32-bit numbers (spectrum.flux_unit), or errors "
    "negative; these pixels are masked",
    "flux_infinite": "fluxes are infinite; these pixels are masked",
    "spectrum_masked": "every pixel is masked or not a number",
}
"""Fault -> its meaning."""
ALL_ALIKE = 20
"""If all of at least so many spectra have the same fault of length or range, the definition is wrong, and not the spectra."""
CACHED = 64
"""Wavelength grids of rows of which the rebinning is kept: many rows have the same."""
CACHED_PIXELS = 1 << 16
"""Pixels that are converted at a time, so that they stay in the cache of a core."""
TINY, HUGE = 1e-37, 1e38
"""Range of positive 32-bit numbers with full precision."""
LEAST_NOISE = 1e-4
"""Estimated errors are at least this fraction of the median flux, for spectra without noise."""

Booleans = NDArray[np.bool_]


class Conversion:
    """Conversion of a batch of rows.

    Attributes
    ----------
    flux, ivar : (n, pixels) float32 on the survey's grid; 0 in masked pixels.
    faults : fault -> (n,) rows that have it.
    """

    def __init__(
        self,
        batch: pa.RecordBatch,
        section: SpectrumSettings,
        grid: WavelengthGrid,
        shared: WavelengthGrid | None,
        check_units: bool,
    ) -> None:
        self.section, self.grid, self.check_units = section, grid, check_units
        rows = batch.num_rows
        self.flux, self.ivar = (np.zeros((rows, len(grid)), np.float32) for _ in range(2))
        self.faults: dict[str, Booleans] = {}
        self._beyond: list[float] = []  # typical errors of spectra most of which is beyond 32-bit numbers
        self._flux = [Lists.of(batch.column(name)) for name in section.flux]
        self._noise = [Lists.of(batch.column(name)) for name in section.ivar or section.error or []]
        self._mask = [Lists.of(batch.column(name)) for name in section.mask or []]
        if shared is not None:
            self._refuse_lengths(batch, len(shared))
            for group, lengths in self._groups(None):
                longer = all(length >= sum(trim) for length, trim in zip(lengths, section.trim, strict=False))
                if longer and sum(lengths) - self._trimmed == len(shared):
                    self._convert(group, lengths, None if shared is grid else _rebinning_of(shared, grid))
                else:
                    self._mark("spectrum_wrong_length", group)
        else:
            wavelengths = Lists.of(batch.column(section.wavelength.column))
            self._refuse_ranges(wavelengths)
            for group, lengths in self._groups(wavelengths):
                self._own_wavelengths(group, lengths[0], wavelengths.row(int(group[0])))
        self._refuse_numbers()
        present = np.logical_or.reduce([lists.length > 0 for lists in self._flux])
        self._mark("spectrum_missing", np.flatnonzero(~present))
        broken = np.logical_or.reduce(
            [np.zeros(rows, bool), *(self.faults.get(name, np.zeros(rows, bool)) for name in list(FAULTS)[:5])]
        )
        self._mark("spectrum_masked", np.flatnonzero(~broken & ~(self.ivar > 0).any(axis=1)))

    @property
    def _trimmed(self) -> int:
        return sum(map(sum, self.section.trim))

    def _mark(self, fault: str, rows: NDArray[np.int64]) -> None:
        if len(rows):
            self.faults.setdefault(fault, np.zeros(len(self.flux), bool))[rows] = True

    def _groups(self, wavelengths: Lists | None) -> Iterator[tuple[NDArray[np.int64], tuple[int, ...]]]:
        """Rows of the same lengths, and of the same wavelengths where these are given; rows whose columns differ in length are marked."""
        lengths = np.stack([lists.length for lists in self._flux], axis=1)
        alike = lengths.sum(axis=1) > 0
        others = [*(zip(self._noise, lengths.T, strict=False)), *(zip(self._mask, lengths.T, strict=False))]
        if wavelengths is not None:
            others.append((wavelengths, lengths[:, 0]))
        differ = np.logical_or.reduce(
            [np.zeros(len(alike), bool), *(lists.length != wanted for lists, wanted in others)]
        )
        self._mark("spectrum_wrong_length", np.flatnonzero(alike & differ))
        groups: dict[Any, list[int]] = {}
        for row in np.flatnonzero(alike & ~differ).tolist():
            key = (*lengths[row].tolist(), wavelengths.row(row).tobytes() if wavelengths is not None else b"")
            groups.setdefault(key, []).append(row)
        for key, rows in groups.items():
            yield np.array(rows), key[:-1]

    def _refuse_lengths(self, batch: pa.RecordBatch, pixels: int) -> None:
        """Refuse files all of whose spectra have another number of values than the grid of the definition."""
        total = np.sum([lists.length for lists in self._flux], axis=0) - self._trimmed
        fixed = all(pa.types.is_fixed_size_list(batch.column(name).type) for name in self.section.flux)
        some = total[total > -self._trimmed]
        if len(some) and (some != pixels).all() and (some == some[0]).all() and (fixed or len(some) >= ALL_ALIKE):
            trimmed = f" after {self._trimmed} are dropped (spectrum.trim)" if self._trimmed else ""
            raise ReadError(
                f"column {', '.join(map(repr, self.section.flux))} (spectrum.flux) has {some[0]} values per row{trimmed}, but "
                f"spectrum.wavelength has {pixels}"
            )

    def _refuse_ranges(self, wavelengths: Lists) -> None:
        """Refuse files all of whose spectra have wavelengths that are implausible in the unit of the definition."""
        given, rows = self.section.wavelength, np.flatnonzero(wavelengths.length > 1)
        if not self.check_units or len(rows) < ALL_ALIKE:
            return
        wrong = ""
        for row in rows.tolist():  # most often ends with the first row
            numbers = _padding_removed(wavelengths.row(row))
            if not len(numbers) or not (wrong := wrong_range(given.angstrom(np.sort(numbers[[0, -1]])), given.unit)):
                return
        raise ReadError(f"column {given.column!r} (spectrum.wavelength.column): {wrong}")

    def _own_wavelengths(self, group: NDArray[np.int64], length: int, numbers: NDArray[Any]) -> None:
        """Convert rows that have the same wavelengths of their own."""
        numbers = _padding_removed(numbers)
        steps = np.diff(numbers)
        if len(numbers) < 2 or not ((steps > 0).all() or (steps < 0).all()):
            self._mark("wavelengths_unsorted", group)
            return
        backwards = bool(steps[0] < 0)
        given = self.section.wavelength
        # Half way between two pixels in the scale of the file: the logarithm, where it has equal steps.
        edges = edges_of((numbers[::-1] if backwards else numbers).astype(np.float64))
        lower, upper = (given.angstrom(ends) for ends in edges)
        if self.check_units and not is_plausible(float(lower[0]), float(upper[-1])):
            self._mark("wavelengths_implausible", group)
            return
        if given.air:
            lower, upper = air_to_vacuum(lower), air_to_vacuum(upper)
        rebinning = _rebinning(lower.tobytes(), upper.tobytes(), self.grid)
        if rebinning.empty:
            self._mark("wavelengths_outside_grid", group)
            return
        self._convert(group, (length,), rebinning, len(numbers), backwards)

    def _convert(
        self,
        group: NDArray[np.int64],
        lengths: tuple[int, ...],
        rebinning: Rebinning | None,
        used: int | None = None,
        backwards: bool = False,
    ) -> None:
        """Convert rows of the same lengths; `used` first values of each, in reverse order if `backwards`."""
        size = max(1, CACHED_PIXELS // max(sum(lengths), 1))
        for first in range(0, len(group), size):
            self._convert_some(group[first : first + size], lengths, rebinning, used, backwards)

    def _convert_some(
        self,
        group: NDArray[np.int64],
        lengths: tuple[int, ...],
        rebinning: Rebinning | None,
        used: int | None,
        backwards: bool,
    ) -> None:
        def joined(lists: list[Lists]) -> NDArray[Any]:
            trims = self.section.trim or ((0, 0),) * len(lists)
            parts = [
                one.rows(group, length)[:, first : length - last]
                for one, length, (first, last) in zip(lists, lengths, trims, strict=True)
            ]
            found = (parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))[:, :used]
            return found[:, ::-1] if backwards else found

        flux = _as_float(joined(self._flux))
        good = np.isfinite(flux)
        self._mark("flux_infinite", group[np.isinf(flux).any(axis=1)])
        if self._mask:
            good &= ~self._rejected(joined(self._mask))
        if self._noise:
            noise = _as_float(joined(self._noise))
            self._mark("ivar_impossible", group[((noise < 0) | np.isinf(noise)).any(axis=1)])
            good &= (noise > 0) & (noise < np.inf)
            # Beyond 1e-18 and 1e18 the square of an error, or its inverse, leaves the range of 32-bit numbers.
            if self.section.error:
                noise = noise.astype(np.float64)
                ivar = np.divide(1.0, noise * noise, out=np.zeros(noise.shape), where=good)
            else:
                ivar = np.where(good, noise, noise.dtype.type(0))
        else:
            ivar = _estimated(flux, good)
        flux = np.where(good, flux, flux.dtype.type(0))
        if rebinning is not None:
            flux, ivar = rebinning.apply(flux, ivar)
        unit = self.section.flux_unit
        if unit != 1:
            flux, ivar = flux / unit, ivar.astype(np.float64) * unit**2
        self._keep(group, flux, ivar)

    def _keep(self, group: NDArray[np.int64], flux: NDArray[np.floating], ivar: NDArray[np.floating]) -> None:
        """Keep spectra as 32-bit numbers; pixels beyond their range are masked and counted."""
        good = ivar > 0
        beyond = good & ((ivar < TINY) | (ivar > HUGE) | (np.abs(flux) > HUGE))
        if beyond.any():
            most = np.count_nonzero(beyond, axis=1) > np.count_nonzero(good, axis=1) / 2
            self._beyond += [float(np.median(1 / np.sqrt(row[row > 0], dtype=np.float64))) for row in ivar[most]]
            self._mark("ivar_impossible", group[beyond.any(axis=1)])
            good &= ~beyond
        self.flux[group] = np.where(good, flux, 0)
        self.ivar[group] = np.where(good, ivar, 0)

    def _refuse_numbers(self) -> None:
        """Refuse files most of whose spectra are beyond the range of 32-bit numbers."""
        if len(self._beyond) >= max(ALL_ALIKE, len(self.flux) / 2):
            typical = float(np.median(self._beyond)) * self.section.flux_unit
            raise ReadError(
                f"column {', '.join(map(repr, self.section.flux))} (spectrum.flux): errors of about {typical:.1g} are beyond the range of "
                f"32-bit numbers once squared and inverted: write spectrum: {{flux_unit: {10 ** round(np.log10(typical)):.0e}}}"
            )

    def _rejected(self, mask: NDArray[Any]) -> Booleans:
        if self.section.mask_bits is not None:
            bits = np.bitwise_or.reduce([np.int64(1) << bit for bit in self.section.mask_bits] or [np.int64(0)])
            return np.asarray((np.nan_to_num(mask).astype(np.int64) & bits) != 0)
        unknown = np.isnan(mask) if mask.dtype.kind == "f" else np.zeros(mask.shape, bool)
        return np.asarray(unknown | ((mask == 0) if self.section.mask_means == "good" else (mask != 0)))


def is_sky(column: pa.Array, values: list[str | int]) -> Booleans:
    """(n,) rows whose value is one of these, compared as text without blanks at its ends."""
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    found = pc.is_in(text, pa.array([str(value) for value in values], pa.string()))
    return np.asarray(found.to_numpy(zero_copy_only=False))


def _as_float(values: NDArray[Any]) -> NDArray[np.floating]:
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def _padding_removed(numbers: NDArray[Any]) -> NDArray[Any]:
    """Numbers without the NaN and zeros at the end, with which rows of a fixed length are filled up."""
    there = np.flatnonzero(numbers > 0)
    return numbers[: there[-1] + 1] if len(there) else numbers[:0]


def _estimated(flux: NDArray[np.floating], good: Booleans) -> NDArray[np.float64]:
    """Inverse variances of spectra without errors, the same in all good pixels of a spectrum.

    The standard deviation is 1.482602 / sqrt(6) times the median of |2 f(i) - f(i-2) - f(i+2)| (DER_SNR; Stoehr et al. 2008, ASPC 394,
    505), in which a smooth spectrum cancels out.
    """
    values = np.where(good, flux, 0).astype(np.float32)
    scale = row_median(np.abs(values), good).astype(np.float64)
    if flux.shape[1] < 5:
        return np.where(good, 1.0, 0.0)
    triple = good[:, 2:-2] & good[:, :-4] & good[:, 4:]
    scatter = row_median(np.abs(2 * values[:, 2:-2] - values[:, :-4] - values[:, 4:]), triple)
    sigma = np.fmax(1.482602 / np.sqrt(6) * scatter.astype(np.float64), LEAST_NOISE * scale)
    ivar = np.divide(1.0, sigma**2, out=np.zeros(len(sigma)), where=sigma > 0)
    return np.where(good, ivar[:, None], 0.0)


@lru_cache(maxsize=CACHED)
def _rebinning(lower: bytes, upper: bytes, grid: WavelengthGrid) -> Rebinning:
    return Rebinning.of((np.frombuffer(lower), np.frombuffer(upper)), grid.edges)


@lru_cache(maxsize=4)
def _rebinning_of(shared: WavelengthGrid, grid: WavelengthGrid) -> Rebinning:
    return Rebinning.of(shared.edges, grid.edges)
