"""Least squares of template spectra at every redshift, by Fourier transforms on ln λ.

At a redshift, a spectrum is fitted by the templates shifted to it: a small least-squares problem whose matrix has the sums of
ivar · T_k · T_l over pixels, and whose right side has those of ivar · flux · T_k. As functions of the redshift both are correlations
along ln λ (Tonry & Davis 1979; Bolton et al. 2012, sect. 3), so that all redshifts cost O(N log N).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmill.networks.spectral import fast_length
from zmill.pdf.grid import Grid
from zmill.restframe.cells import Cells
from zmill.restframe.forest import transmissions

WIDTH = 0.5
"""Standard deviation of the coefficients in units of that of the SEDs, whose libraries have more extremes than the sky."""
POLYNOMIAL = 0.3
"""Standard deviation of the coefficients of the polynomial, in units of the level of the spectrum."""


@dataclass(frozen=True)
class Axis:
    """An axis of evenly spaced ln λ that has all pixels, and the redshifts that are shifts by a number of its steps.

    The last redshift may be beyond the redshift grid by less than a step.

    start : ln λ of its first point, Angstrom. step : distance of two points. size : number of points.
    places : (pixels) the point of each pixel. z : (shifts) redshifts.
    """

    start: float
    step: float
    size: int
    places: NDArray[np.int64]
    z: NDArray[np.float64]

    @classmethod
    def of(cls, wavelength: NDArray[np.float64], log_step: float | None, grid: Grid) -> Axis:
        """The axis of a survey. Neighboring redshifts are no further apart than the points of the redshift grid.

        Pixels that are evenly spaced in ln λ are points of the axis; others are put on the nearest point, at most a quarter of a pixel
        away.

        wavelength : (pixels,) Angstrom, in vacuum. log_step : distance of the pixels in ln λ, where it is the same for all.
        """
        finest = grid.step / (1 + grid.z_max)
        place = np.log(wavelength)
        pixel = log_step or float(np.median(np.diff(place))) / 2
        step = pixel / math.ceil(pixel / finest)
        places = np.rint((place - place[0]) / step).astype(np.int64)
        shifts = math.ceil(math.log((1 + grid.z_max) / (1 + grid.z_min)) / step - 1e-6) + 1
        z = (1 + grid.z_min) * np.exp(step * np.arange(shifts)) - 1
        return cls(float(place[0]), step, int(places[-1]) + 1, places, z)

    @property
    def shifts(self) -> int:
        """Number of redshifts."""
        return len(self.z)

    @property
    def rest(self) -> Cells:
        """The rest-frame wavelengths that are seen at any redshift, a cell for each point."""
        first = self.start - math.log1p(self.z[-1]) - self.step / 2
        return Cells(first, self.step, self.size + self.shifts - 1)


class Part(NamedTuple):
    """The templates at the rest-frame wavelengths between two lines of the Lyman series, 0 at others.

    spectra, products : (k, frequencies), (k (k + 1) / 2, frequencies) Fourier transforms of the templates and of their products.
    transmission : (axis,) of the light emitted there, at observed wavelengths.
    """

    spectra: Tensor
    products: Tensor
    transmission: Tensor


class Basis:
    """The templates of one class, ready for correlations.

    The mean absorption by the intergalactic medium is a function of the observed wavelength between two lines of the Lyman series
    (`zmill.restframe.forest`). The templates are cut there; each part is correlated with fluxes and weights times its transmission.

    Parameters
    ----------
    flux : (k, rest) templates, each times the standard deviation of its coefficient.
    z : lowest and highest redshift at which they are fitted.
    absorption : name of the model of the absorption.
    """

    def __init__(self, flux: Tensor, z: tuple[float, float], axis: Axis, absorption: str = "None") -> None:
        self.flux, self.z, self.axis, self.absorption = flux, z, axis, absorption
        self.count, self.length = len(flux), fast_length(axis.rest.size)
        rows, columns = torch.tril_indices(self.count, self.count)
        rest, observed = axis.rest.centers, np.exp(axis.start + axis.step * np.arange(axis.size))
        lowest = observed[0] / (1 + min(z[1], float(axis.z[-1]))) * (1 - axis.step / 2)
        above = [(np.inf, np.ones(axis.size)), *transmissions(absorption, observed)]
        self.parts: list[Part] = []
        mean = torch.zeros(axis.shifts, dtype=torch.float64)
        for (high, through), low in zip(above, [*(line for line, _ in above[1:]), lowest], strict=True):
            inside = torch.as_tensor((rest < high) & (rest >= max(low, lowest)))
            if inside.any():
                cut, transmission = flux * inside, torch.as_tensor(through)
                products = torch.fft.rfft(cut[rows] * cut[columns], self.length)
                self.parts.append(Part(torch.fft.rfft(cut, self.length), products, transmission.float()))
                mean += self._sums(transmission, cut.double().square().sum(0).sqrt()) / axis.size
        # The level of a spectrum is one wherever it is seen: coefficients are in units of the templates' mean flux there.
        self.precision = (mean.clamp_min(0).square() / WIDTH**2).float()
        complete = self._sums(torch.ones(axis.size).double(), (flux != 0).any(0).double()) >= axis.size - 0.5
        redshifts = torch.as_tensor(axis.z).flip(0)
        self.usable = complete & (redshifts >= z[0]) & (redshifts <= z[1])

    def _sums(self, weight: Tensor, values: Tensor) -> Tensor:
        """(shifts,) sums over the axis of weights (axis,) times values (rest,), from the largest redshift on."""
        found = torch.fft.irfft(
            torch.fft.rfft(weight, self.length).conj() * torch.fft.rfft(values, self.length), self.length
        )
        return found[: self.axis.shifts]

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        for name in ("flux", "precision", "usable"):
            setattr(self, name, getattr(self, name).to(device))
        self.parts = [Part(*(one.to(device) for one in part)) for part in self.parts]

    def likelihood(self, flux: Tensor, ivar: Tensor, polynomials: Tensor) -> Tensor:
        """(n, shifts) ln of the marginal likelihood of the spectra at the redshifts of the axis, up to a constant per spectrum.

        The coefficients have a Gaussian prior, and are integrated out: with M the normal matrix plus the inverse variances of the
        prior, and y the right side, it is yᵀ M⁻¹ y / 2 − ln det M / 2 + ln det(prior) / 2. At redshifts at which the templates do not
        cover the spectrum it is −∞.

        flux, ivar : (n, axis) in units of the level, 0 where there is no pixel. polynomials : (p, axis).
        """
        weighted = ivar * flux
        products = self._products(ivar)
        rows = list(products.split(list(range(1, self.count + 1)), 1))
        right = list(self._spectra(weighted).unbind(1))
        for number, row in enumerate(rows):
            row[:, number] += self.precision
        for number, values in enumerate(polynomials):
            along = self._spectra(ivar * values)
            own = (ivar @ (values * polynomials[: number + 1]).T)[..., None].expand(-1, -1, self.axis.shifts)
            row = torch.cat([along, own], 1)
            row[:, -1] += POLYNOMIAL**-2
            rows.append(row)
            right.append((weighted @ values)[:, None].repeat(1, self.axis.shifts))
        found = reduction(rows, right).add_(self.precision.log(), alpha=self.count / 2)
        return found.masked_fill_(~self.usable, -torch.inf).flip(1)

    def _spectra(self, values: Tensor) -> Tensor:
        """(n, k, shifts) sums of values (n, axis) times templates, from the largest redshift on."""
        return self._correlated((values * part.transmission, part.spectra) for part in self.parts)

    def _products(self, values: Tensor) -> Tensor:
        """(n, k (k + 1) / 2, shifts) sums of values (n, axis) times products of templates, from the largest redshift on."""
        return self._correlated((values * part.transmission.square(), part.products) for part in self.parts)

    def _correlated(self, terms: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Sum over terms of correlations of values (n, axis) with transformed templates (k, frequencies)."""
        total: Tensor | None = None
        for values, templates in terms:
            transformed = torch.fft.rfft(values, self.length).conj()[:, None]
            total = transformed * templates if total is None else total.addcmul_(transformed, templates)
        assert total is not None
        return torch.fft.irfft(total, self.length)[..., : self.axis.shifts]


def reduction(rows: list[Tensor], right: list[Tensor]) -> Tensor:
    """(n, s) yᵀ M⁻¹ y / 2 − ln det M / 2 of many small symmetric positive definite matrices, by Cholesky's decomposition.

    Parameters
    ----------
    rows : row i of the lower triangle, (n, i + 1, s) each; overwritten.
    right : y, (n, s) for each row; overwritten.
    """
    found = torch.zeros_like(right[0])
    columns = found.new_empty(found.shape[0], len(rows), found.shape[1])
    for j, row in enumerate(rows):
        pivot = row[:, j].clamp_min(1e-20)
        found.sub_(pivot.log(), alpha=0.5)
        inverse = pivot.rsqrt()
        solved = right[j].mul_(inverse)
        found.addcmul_(solved, solved, value=0.5)
        for i in range(j + 1, len(rows)):
            torch.mul(rows[i][:, j], inverse, out=columns[:, i])
            right[i].addcmul_(columns[:, i], solved, value=-1)
            rows[i][:, j + 1 :].addcmul_(columns[:, j + 1 : i + 1], columns[:, i, None], value=-1)
    return found


def polynomials(size: int, count: int) -> Tensor:
    """(count, size) the first Legendre polynomials, from −1 at the first point to 1 at the last."""
    x = np.linspace(-1, 1, size)
    return torch.as_tensor(np.polynomial.legendre.legvander(x, max(count - 1, 0)).T[:count].copy()).float()


def to_grid(z: NDArray[np.float64], grid: Grid) -> tuple[Tensor, Tensor]:
    """How probabilities of redshifts, evenly spaced in ln(1 + z), become densities at grid points: each is divided among the two nearest
    points, so that none is lost however narrow a peak is. A density that is the same at all redshifts stays so.

    Returns
    -------
    (size, c) numbers of the redshifts that are near each point, and (size, c) densities that a probability of one gives it.
    """
    position = np.minimum((z - grid.z_min) / grid.step, grid.size - 1)
    points = np.arange(grid.size)
    first = np.searchsorted(position, points - 1, side="right")
    last = np.searchsorted(position, points + 1, side="left")
    near = first[:, None] + np.arange(max(int((last - first).max()), 1))
    inside = near < last[:, None]
    near = np.minimum(near, len(z) - 1)
    share = np.where(inside, 1 - np.abs(position[near] - points[:, None]), 0.0)
    share /= (share * (1 + z[near])).sum(1, keepdims=True) * math.log((1 + z[1]) / (1 + z[0]))
    return torch.from_numpy(near), torch.as_tensor(share).float()
