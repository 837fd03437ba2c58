"""The section `spectrum:` of the survey definition."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from zmill.inputs.spectrum.grid import WavelengthGrid, air_to_vacuum
from zmill.inputs.spectrum.units import ANGSTROM, wrong_range
from zmill.sections import ConfigError, Section, Text

MOST_PIXELS = 100_000
Positive = Annotated[float, Field(gt=0, le=1e12)]
Count = Annotated[int, Field(ge=0, le=MOST_PIXELS)]
Pixels = Annotated[int, Field(ge=16, le=MOST_PIXELS)]
Names = Annotated[
    list[Text], Field(min_length=1), BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]
"""One column, or a list of columns whose values are joined."""


class Wavelengths(Section):
    """The wavelengths of the pixels in the survey's files: a column of each row, or one grid for all rows.

    One grid is given by `start`, `step` and `pixels`, or by its `values`.
    """

    column: Text | None = None
    """Column with the wavelengths of each row, as many as its fluxes."""
    start: float | None = None
    """Of the first pixel's center."""
    step: Positive | None = None
    """Between the centers of two pixels."""
    pixels: Pixels | None = None
    """Number of pixels."""
    values: Annotated[list[Positive], Field(min_length=16, max_length=MOST_PIXELS)] | None = None
    """All of them, increasing."""
    scale: Literal["linear", "log10", "ln"] = "linear"
    """What `column`, `start`, `step` and `values` are: wavelengths, or logarithms of wavelengths."""
    unit: Literal["angstrom", "nanometer", "micrometer"]
    """Unit of the wavelengths. Files whose own unit differs, and wavelengths that no survey of redshifts has, are refused."""
    air: bool
    """Whether they are wavelengths in air, which are converted to vacuum (Morton 2000); redshifts need vacuum."""

    @model_validator(mode="after")
    def _one_way(self) -> Wavelengths:
        rule = (self.start, self.step, self.pixels)
        ways = [self.column is not None, self.values is not None, any(part is not None for part in rule)]
        if sum(ways) != 1:
            raise ValueError("give one of `column`, `values`, or `start` with `step` and `pixels`")
        if ways[2] and None in rule:
            raise ValueError("`start`, `step` and `pixels` are given together")
        if self.values is not None and not (np.diff(self.values) > 0).all():
            raise ValueError("values: expected wavelengths that increase from pixel to pixel")
        return self

    def angstrom(self, numbers: NDArray[np.floating]) -> NDArray[np.float64]:
        """Wavelengths in angstrom, in the medium of the file, of numbers in the definition's scale and unit."""
        numbers = numbers.astype(np.float64)
        with np.errstate(over="ignore"):
            if self.scale != "linear":
                numbers = np.exp(numbers if self.scale == "ln" else numbers * np.log(10))
        return np.asarray(numbers * ANGSTROM[self.unit])

    @property
    def numbers(self) -> NDArray[np.float64] | None:
        """(pixels) the numbers of a grid for all rows; None where each row has its own."""
        if self.values is not None:
            return np.array(self.values)
        if self.start is None or self.step is None or self.pixels is None:
            return None
        return np.asarray(self.start + self.step * np.arange(self.pixels), np.float64)


class TargetGrid(Section):
    """The grid that all spectra are rebinned to: vacuum wavelengths in angstrom, whatever the files have."""

    start: Annotated[float, Field(ge=100, le=1e6)]
    """Center of the first pixel."""
    stop: Annotated[float, Field(ge=100, le=1e6)]
    """Center of the last pixel."""
    pixels: Pixels
    """Number of pixels."""
    scale: Literal["log", "linear"] = "log"
    """Whether the logarithm of the wavelength has equal steps, on which a redshift is a shift, or the wavelength."""

    @model_validator(mode="after")
    def _ordered(self) -> TargetGrid:
        if self.stop <= self.start:
            raise ValueError(f"stop ({self.stop:g}) must be above start ({self.start:g})")
        return self

    @property
    def grid(self) -> WavelengthGrid:
        """The grid."""
        first, last = np.log10([self.start, self.stop]) if self.scale == "log" else (self.start, self.stop)
        step = float(last - first) / (self.pixels - 1)
        return WavelengthGrid("log10" if self.scale == "log" else "linear", float(first), step, self.pixels)


class SkyFibers(Section):
    """Rows that are spectra of empty sky."""

    column: Text
    """Column with the type of the target."""
    equals: Annotated[list[Text | int], Field(min_length=1)]
    """Its values in sky fibers."""


class SpectrumSettings(Section):
    """The section `spectrum:`: a spectrum in each row, as columns of several numbers."""

    flux: Names
    """Column of flux densities, in any unit. The values of several columns are joined, as Gaia's BP and RP."""
    ivar: Names | None = None
    """Column of inverse variances of the flux; pixels with 0 are masked."""
    error: Names | None = None
    """Column of standard deviations of the flux instead; pixels with 0 or below are masked. Without `ivar` and `error`, each spectrum
    has one error, estimated from the scatter of its neighboring pixels (Stoehr et al. 2008)."""
    mask: Names | None = None
    """Column of integers or logical values per pixel; those that are not 0 mask a pixel."""
    mask_bits: list[Annotated[int, Field(ge=0, le=62)]] | None = None
    """Only these bits of `mask` mask a pixel; left out, every bit."""
    mask_means: Literal["bad", "good"] = "bad"
    """Meaning of values of `mask` that are not 0."""
    trim: tuple[tuple[Count, Count], ...] = ()
    """Numbers of pixels that are dropped at the start and at the end of each column of `flux`: [[34, 6], [4, 10]]."""
    wavelength: Wavelengths
    grid: TargetGrid | None = None
    """Left out, spectra with one wavelength grid for all rows are stored on it as they are."""
    flux_unit: Annotated[float, Field(gt=0, ge=1e-40, le=1e40)] = 1.0
    """A stored flux of 1, in the unit of the file: 1e-17 keeps fluxes in erg/s/cm2/angstrom within the range of 32-bit numbers."""
    sky: SkyFibers | None = None

    @model_validator(mode="after")
    def _consistent(self) -> SpectrumSettings:
        if self.ivar and self.error:
            raise ValueError("give `ivar` or `error`, not both")
        for key in ("ivar", "error", "mask"):
            names = getattr(self, key)
            if names and len(names) != len(self.flux):
                raise ValueError(f"{key}: expected as many columns as flux has ({len(self.flux)}), found {len(names)}")
        if self.trim and len(self.trim) != len(self.flux):
            raise ValueError(f"trim: expected two numbers for each column of flux ({len(self.flux)})")
        if self.wavelength.column and (len(self.flux) > 1 or self.trim):
            raise ValueError(
                "wavelength.column: joined or trimmed columns need `values`, or `start`, `step` and `pixels`"
            )
        if self.wavelength.column and self.grid is None:
            raise ValueError("grid: rows with their own wavelengths need a grid that all of them are rebinned to")
        if (self.mask_bits is not None or self.mask_means == "good") and not self.mask:
            raise ValueError("mask_bits and mask_means need `mask`")
        if self.mask_bits is not None and self.mask_means == "good":
            raise ValueError("mask_bits: bits mark bad pixels: leave out mask_means")
        return self

    @property
    def shared(self) -> WavelengthGrid | None:
        """The grid of all rows, in vacuum; None where each row has its own."""
        given = self.wavelength
        numbers = given.numbers
        if numbers is None:
            return None
        if given.air or given.values is not None:
            found = given.angstrom(numbers)
            return WavelengthGrid.of_values(air_to_vacuum(found) if given.air else found)
        start, step, pixels = float(given.start or 0), float(given.step or 0), len(numbers)
        factor = ANGSTROM[given.unit]
        if given.scale == "linear":
            return WavelengthGrid("linear", start * factor, step * factor, pixels)
        of_ln = np.log10(np.e) if given.scale == "ln" else 1.0
        return WavelengthGrid("log10", float(start * of_ln + np.log10(factor)), float(step * of_ln), pixels)


@lru_cache(maxsize=8)
def _grids(text: str, check: bool) -> tuple[WavelengthGrid, WavelengthGrid | None]:
    section = SpectrumSettings.model_validate_json(text)
    shared = section.shared
    if shared is not None and check and (wrong := wrong_range(shared.wavelength, section.wavelength.unit)):
        raise ConfigError(f"survey definition: spectrum.wavelength: {wrong}")
    target = section.grid.grid if section.grid else shared
    assert target is not None  # the section refuses rows with their own wavelengths without a grid
    if shared is not None and not (
        shared.wavelength[0] <= target.wavelength[-1] and target.wavelength[0] <= shared.wavelength[-1]
    ):
        raise ConfigError(
            f"survey definition: spectrum.grid: {target} and the spectra ({shared}) have no wavelength in common; the grid is in angstrom"
        )
    return target, shared


def grids(section: SpectrumSettings, check_units: bool) -> tuple[WavelengthGrid, WavelengthGrid | None]:
    """The grid of the stored spectra, and the grid of all rows in the files; None where each row has its own.

    Raises
    ------
    ConfigError
        For wavelengths that are implausible in the unit of the definition, if `check_units`, and for grids without a common part.
    """
    return _grids(section.model_dump_json(), check_units)
