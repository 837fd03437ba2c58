"""Stamps as the numbers that networks take as inputs: pixels in units of the noise of their band, and a few numbers for each stamp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from zmill.chunks import row_chunks
from zmill.inputs.image.batch import Images
from zmill.networks.device import sent

LARGEST = 60_000.0
"""Pixels in units of the noise are clipped to this, which a 16-bit number can hold."""
CHUNK = 1024
"""Number of stamps that are prepared at a time."""
FARTHEST = 8.0
"""Standard deviations of the training rows to which the numbers of a stamp are clipped."""


class Stamps(NamedTuple):
    """Stamps of n rows.

    pixels : (n, bands, N, N) fluxes in units of the typical noise of their band; 0 in masked pixels, and where there is no stamp.
    noise : (n, bands) standard deviation of the noise of a pixel in the same units, the median over the good pixels; 0 without any.
    psf : (n, bands) FWHM of the point spread function in arcsec, NaN where unknown.
    ebv : (n,) E(B−V) in magnitudes, NaN where unknown.
    there : (n,) bool, whether there is a stamp.
    """

    pixels: Tensor
    noise: Tensor
    psf: Tensor
    ebv: Tensor
    there: Tensor

    def rows(self, rows: Tensor | slice) -> Stamps:
        """Some of the rows."""
        return Stamps(*(part[rows] for part in self))


def noise_of(batch: Images) -> np.ndarray:
    """(n, bands) standard deviation of the noise of a pixel, the median over the good pixels; 0 in a band without any."""
    n, bands = batch.flux.shape[:2]
    ivar = np.ascontiguousarray(batch.ivar).reshape(n, bands, -1)
    if ivar.shape[2] > 1:
        ivar = np.nan_to_num(np.nanmedian(np.where(ivar > 0, ivar, np.nan), axis=2, keepdims=True))
    found: np.ndarray = np.divide(1, np.sqrt(ivar), out=np.zeros_like(ivar), where=ivar > 0)[:, :, 0]
    return found


class StampInputs(nn.Module):
    """Images to stamps in units of the typical noise, and the numbers of a stamp to standardized inputs. Fitted on training rows.

    Parameters
    ----------
    bands : number of bands.
    """

    sigma: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands, self.size = bands, 2 * bands + 2
        self.register_buffer("sigma", torch.ones(bands))
        self.register_buffer("offset", torch.zeros(self.size))
        self.register_buffer("scale", torch.ones(self.size))

    def fit(self, batch: Images) -> None:
        """Fit the typical noise of each band, and the scaling of the numbers of a stamp."""
        noise = torch.from_numpy(noise_of(batch))
        typical = torch.where(noise > 0, noise, torch.nan).nanmedian(0).values
        self.sigma.copy_(torch.where(typical > 0, typical, 1.0))
        values = self._raw(self.stamps(batch))
        mean = values.nanmean(0)
        deviation = (values - mean).square().nanmean(0).sqrt()
        self.offset.copy_(torch.nan_to_num(mean, nan=0.0))
        self.scale.copy_(torch.where(deviation > 1e-3, deviation, 1.0))

    def stamps(self, batch: Images) -> Stamps:
        """The stamps of a batch, on the device of the module."""
        device = self.sigma.device
        pixels = sent(np.ascontiguousarray(batch.flux), device) / self.sigma[:, None, None]
        good = sent(np.ascontiguousarray(batch.ivar), device) > 0
        pixels = torch.where(good, pixels, 0.0).clamp_(-LARGEST, LARGEST)
        noise = sent(noise_of(batch), device) / self.sigma
        return Stamps(pixels, noise, sent(batch.psf, device), sent(batch.ebv, device), sent(batch.good, device) > 0)

    def forward(self, stamps: Stamps) -> Tensor:
        """(n, size) standardized numbers of stamps: 0 where unknown, clipped; the last one is whether there is a stamp."""
        values = (self._raw(stamps) - self.offset) / self.scale
        values = torch.nan_to_num(values, nan=0.0).clamp(-FARTHEST, FARTHEST)
        return torch.where(stamps.there[:, None], values, 0.0)

    def _raw(self, stamps: Stamps) -> Tensor:
        noise = torch.where(stamps.noise > 0, stamps.noise, torch.nan).log()
        return torch.cat([noise, stamps.psf, stamps.ebv[:, None], stamps.there[:, None].float()], 1)


def prepared(batch: Any, features: StampInputs) -> Callable[[Tensor], Stamps]:
    """What gives the stamps of training rows by their numbers. Rows in memory are prepared once, and kept as 16-bit numbers on the device."""

    def rounded(rows: Any) -> Stamps:
        found = features.stamps(batch[rows])
        return found._replace(pixels=found.pixels.half())

    if isinstance(batch, Images):
        every = Stamps(*map(torch.cat, zip(*map(rounded, row_chunks(len(batch), CHUNK)), strict=True)))
    else:
        every = None

    def of(numbers: Tensor) -> Stamps:
        own = rounded(numbers.cpu().numpy()) if every is None else every.rows(numbers)
        return own._replace(pixels=own.pixels.float())

    return of
