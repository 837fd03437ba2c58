"""Spectra as an instrument measures them: redshifted, at its resolution, integrated over its pixels.

An SED is held as its energy in cells of equal width in ln(wavelength). A redshift shifts it by ln(1 + z) and changes the energy of no cell,
because f_lambda falls by 1 + z and the cell is as much wider. The instrument is a matrix from cells to pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from zmill.restframe.cells import FWHM, REACH, Cells

Array = NDArray[np.float64]

BLOCK = 64
"""Number of pixels whose matrix is held together."""


@dataclass(frozen=True)
class Arm:
    """One arm of a spectrograph. edges : (p + 1,) of its pixels, Angstrom; resolving_power : of wavelengths in Angstrom."""

    edges: Array
    resolving_power: Callable[[Any], Any]


Block: TypeAlias = tuple[slice, slice, Array]
"""Pixels, cells, and the matrix from the energy in these cells to the mean f_lambda in these pixels."""


@dataclass(frozen=True)
class Spectrograph:
    """An instrument with a grid of pixels.

    wavelength : (p,) centers of the pixels, Angstrom, increasing.
    cells : observed cells.
    blocks : parts of the matrix from cells to pixels that are not 0.
    """

    wavelength: Array
    cells: Cells
    blocks: tuple[Block, ...]

    @classmethod
    def dispersed(cls, *arms: Arm, step: float) -> Spectrograph:
        """A spectrograph: light is spread by a Gaussian of FWHM wavelength / resolving power and integrated over pixels.

        Parameters
        ----------
        arms : from blue to red; each receives light from beyond its ends.
        step : width of the cells in ln(wavelength); at most a fifth of the FWHM over the wavelength.
        """
        ends = np.array([arms[0].edges[0], arms[-1].edges[-1]])
        sigma = [
            end / float(arm.resolving_power(end)) / FWHM for end, arm in zip(ends, (arms[0], arms[-1]), strict=True)
        ]
        cells = Cells.cover(ends[0] - REACH * sigma[0], ends[1] + REACH * sigma[1], step)
        center = cells.centers
        blocks: list[Block] = []
        for arm in arms:
            spread = center / arm.resolving_power(center) / FWHM

            def matrix(pixels: slice, part: slice, edges: Array = arm.edges, spread: Array = spread) -> Array:
                around = edges[pixels.start : pixels.stop + 1]
                below = ndtr((around - center[part, None]) / spread[part, None])
                return np.asarray(np.diff(below, axis=1) / np.diff(around))

            done = blocks[-1][0].stop if blocks else 0
            blocks += _blocks(arm.edges[:-1], arm.edges[1:], center, spread, matrix, done)
        middle = np.concatenate([(arm.edges[1:] + arm.edges[:-1]) / 2 for arm in arms])
        return cls(middle, cells, tuple(blocks))

    @classmethod
    def filtered(cls, centers: Array, resolving_power: Array, step: float) -> Spectrograph:
        """An instrument of narrow bandpasses: each is a Gaussian of FWHM center / resolving power.

        Parameters
        ----------
        centers, resolving_power : (p,) of the bandpasses, Angstrom.
        step : as in `dispersed`.
        """
        width = centers / resolving_power / FWHM
        cells = Cells.cover(centers[0] - REACH * width[0], centers[-1] + REACH * width[-1], step)
        center, size = cells.centers, np.diff(cells.edges)

        def matrix(pixels: slice, part: slice) -> Array:
            response = np.exp(-(((center[part, None] - centers[pixels]) / width[pixels]) ** 2) / 2)
            return np.asarray(response / (size[part] @ response))

        low, high = centers - REACH * width, centers + REACH * width
        return cls(centers, cells, tuple(_blocks(low, high, center, np.zeros(len(center)), matrix, 0)))

    def rest_cells(self, z_min: float, z_max: float) -> Cells:
        """The cells that SEDs must fill to be observed at redshifts between two; those of z = 0 coincide with `cells`."""
        step = self.cells.step
        before = int(np.ceil(np.log1p(z_max) / step)) + 1
        after = 2 - int(np.floor(np.log1p(z_min) / step))
        return Cells(self.cells.start - before * step, step, before + self.cells.size + after)

    def observe(self, energy: Array, which: NDArray[np.int64], rest: Cells, z: Array) -> Array:
        """Spectra of redshifted SEDs.

        Parameters
        ----------
        energy : (s, c) energy of each SED in the rest-frame cells.
        which : (n,) number of the SED of each spectrum.
        rest : the cells, from `rest_cells`.
        z : (n,) redshifts.

        Returns
        -------
        (n, p) mean f_lambda in each pixel.
        """
        shift = (self.cells.start - np.log1p(z) - rest.start) / rest.step
        first = np.floor(shift).astype(int)
        part = shift - first
        seen = np.empty((len(z), self.cells.size))
        for row, (number, start, fraction) in enumerate(zip(which, first, part, strict=True)):
            cut = energy[number, start : start + self.cells.size + 1]
            np.multiply(cut[:-1], 1 - fraction, out=seen[row])
            seen[row] += fraction * cut[1:]
        flux = np.empty((len(z), len(self.wavelength)))
        for pixels, cells, matrix in self.blocks:
            flux[:, pixels] = seen[:, cells] @ matrix
        return flux


def _blocks(
    low: Array, high: Array, center: Array, sigma: Array, matrix: Callable[[slice, slice], Array], offset: int
) -> list[Block]:
    """Matrices of `BLOCK` pixels each, with the cells that reach into them.

    Parameters
    ----------
    low, high : (p,) ends of the pixels.
    center, sigma : (c,) wavelengths of the cells, and the spread of their light.
    offset : number of the first pixel.
    """
    blocks = []
    for start in range(0, len(low), BLOCK):
        pixels = slice(start, min(start + BLOCK, len(low)))
        inside = (center + REACH * sigma >= low[pixels].min()) & (center - REACH * sigma <= high[pixels].max())
        near = np.flatnonzero(inside)
        part = slice(int(near[0]), int(near[-1]) + 1)
        blocks.append((slice(pixels.start + offset, pixels.stop + offset), part, matrix(pixels, part)))
    return blocks
