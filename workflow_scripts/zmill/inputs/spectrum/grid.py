"""Wavelength grids: vacuum wavelengths in angstrom of the pixels of a spectrum, and the conversion from air."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

Scale = Literal["linear", "log10", "values"]

IN_AIR = 2000.0
"""Wavelengths below are given in vacuum by convention, angstrom (Morton 1991)."""
GAP = 1.5
"""A pixel whose two neighbors differ in distance by more than this factor lies at a gap: it ends half the smaller distance away."""

FINE = 0.25
"""Pixels of spectra that are not evenly spaced in ln λ are rebinned to the step that this fraction of their own steps is below."""


@dataclass(frozen=True)
class WavelengthGrid:
    """Centers of the pixels of a spectrum, increasing: vacuum wavelengths in angstrom.

    scale : `linear` and `log10` are `start + step * number` of the wavelength or of its decimal logarithm; `values` are listed.
    values : (pixels) of the scale `values`; empty for the others.
    """

    scale: Scale
    start: float = 0.0
    step: float = 0.0
    pixels: int = 0
    values: tuple[float, ...] = ()

    @classmethod
    def of_values(cls, values: NDArray[np.float64]) -> Self:
        """The grid of wavelengths that follow no rule."""
        return cls("values", pixels=len(values), values=tuple(values.tolist()))

    def __len__(self) -> int:
        return self.pixels

    @cached_property
    def wavelength(self) -> NDArray[np.float64]:
        """(pixels) vacuum wavelength of the centers, angstrom."""
        if self.scale == "values":
            return np.array(self.values)
        numbers = self.start + self.step * np.arange(self.pixels)
        return np.asarray(10**numbers if self.scale == "log10" else numbers, np.float64)

    @cached_property
    def edges(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(pixels) lower and upper ends of the pixels, angstrom."""
        if self.scale == "log10":
            middle = self.start + self.step * np.arange(self.pixels)
            return np.asarray(10 ** (middle - self.step / 2)), np.asarray(10 ** (middle + self.step / 2))
        return edges_of(self.wavelength)

    @property
    def log_step(self) -> float | None:
        """Distance of two pixels in the natural logarithm of the wavelength; None where it is not the same for all."""
        return self.step * float(np.log(10)) if self.scale == "log10" else None

    def to_json(self) -> dict[str, Any]:
        """The grid as plain values."""
        if self.scale == "values":
            return {"scale": self.scale, "values": list(self.values)}
        return {"scale": self.scale, "start": self.start, "step": self.step, "pixels": self.pixels}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The reverse of `to_json`."""
        if content["scale"] == "values":
            return cls.of_values(np.asarray(content["values"], np.float64))
        return cls(content["scale"], content["start"], content["step"], content["pixels"])

    def __str__(self) -> str:
        first, last = self.wavelength[[0, -1]]
        return f"{self.pixels} pixels from {first:.6g} to {last:.6g} angstrom ({self.scale})"


def edges_of(centers: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n) lower and upper ends of pixels with increasing centers: half way to their neighbors, except at gaps."""
    if len(centers) == 1:
        return centers * 0.999, centers * 1.001
    distance = np.diff(centers)
    left, right = np.append(distance[0], distance), np.append(distance, distance[-1])
    smaller = np.minimum(left, right)
    left, right = (np.where(side > GAP * smaller, smaller, side) for side in (left, right))
    return centers - left / 2, centers + right / 2


def evenly_in_log(grid: WavelengthGrid) -> WavelengthGrid:
    """A grid from the first to the last pixel of another one, evenly spaced in ln λ, with the step that a fraction `FINE` of its steps is below."""
    places = np.log10(grid.wavelength)
    step = float(np.quantile(np.diff(places), FINE))
    return WavelengthGrid("log10", float(places[0]), step, int((places[-1] - places[0]) / step) + 1)


def air_to_vacuum(wavelength: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vacuum wavelengths of wavelengths in standard air, angstrom; those below 2000 are unchanged.

    The refractive index is that of Morton (2000, ApJS 130, 403), eq. 8 (the formula of Birch & Downs 1994), a function of the vacuum
    wavelength, so that the equation is solved by iteration.
    """
    vacuum = wavelength
    for _ in range(4):  # each one adds four digits
        square = (1e4 / vacuum) ** 2
        index = 1 + 8.34254e-5 + 2.406147e-2 / (130 - square) + 1.5998e-4 / (38.9 - square)
        vacuum = np.where(wavelength >= IN_AIR, wavelength * index, wavelength)
    return vacuum
