"""A dilated residual network over a spectrum whose pixels are evenly spaced in ln λ, where a redshift is a shift along the axis.

The head correlates features with learned templates at rest-frame wavelengths: the score of a redshift is the product of the features
and the templates shifted by it. All redshifts share the templates, so that a line that was seen at one redshift is known at all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = 3
"""Inputs per pixel: flux, signal-to-noise ratio, and whether the pixel is good."""
SEGMENTS = 16
"""Segments over which features are averaged for the part of the network that does not know shifts."""
KERNEL = 5
LONGEST = 512
"""Largest number of pixels of the residual blocks; features of longer spectra are computed at every second, third, … pixel."""


class Correlation(nn.Module):
    """Correlation of features (n, channels, pixels) with learned templates at `shifts` shifts, by Fourier transforms.

    A template has `pixels + shifts − 1` values: all rest-frame pixels that are seen at any of the redshifts.
    """

    def __init__(self, channels: int, pixels: int, shifts: int) -> None:
        super().__init__()
        self.shifts, self.length = shifts, pixels + shifts - 1
        self.template = nn.Parameter(torch.randn(channels, self.length) / math.sqrt(channels * pixels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, pixels) -> (n, shifts), from the smallest redshift to the largest."""
        transformed = torch.fft.rfft(x.float(), self.length).conj() * torch.fft.rfft(self.template.float())
        return torch.fft.irfft(transformed.sum(1), self.length)[:, : self.shifts].flip(1)


class Block(nn.Module):
    """x + convolution(relu(dilated convolution(relu(x))))."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, width, KERNEL, padding=dilation * (KERNEL // 2), dilation=dilation)
        self.second = nn.Conv1d(width, width, 1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, pixels) -> the same."""
        return x + self.second(functional.relu(self.first(functional.relu(x))))


class SpectralNetwork(nn.Module):
    """Scores of the points of the redshift grid: correlations at full and at reduced resolution, and a part that does not know shifts.

    Parameters
    ----------
    pixels : number of pixels of the inputs.
    step : distance of two pixels in ln λ.
    z : (size,) redshift grid.
    width, blocks : channels, and residual blocks with dilations 1, 2, 4, 8, 1, ….
    """

    def __init__(self, pixels: int, step: float, z: Tensor, width: int, blocks: int) -> None:
        super().__init__()
        self.stride = math.ceil(pixels / LONGEST)
        reduced = (pixels - 1) // self.stride + 1
        self.stem = nn.Conv1d(CHANNELS, width, 2 * self.stride + KERNEL, self.stride, self.stride + KERNEL // 2)
        self.blocks = nn.ModuleList(Block(width, 2 ** (number % 4)) for number in range(blocks))
        position = ((1 + z.double()).log() - (1 + z[0].double()).log()) / step
        self.full = Correlation(CHANNELS, pixels, math.ceil(float(position[-1])) + 2)
        self.reduced = Correlation(width, reduced, math.ceil(float(position[-1]) / self.stride) + 2)
        self.register_buffer("position", position.float(), persistent=False)
        self.fixed = nn.Sequential(nn.Linear(width * SEGMENTS, 4 * width), nn.ReLU(), nn.Linear(4 * width, len(z)))

    def features(self, x: Tensor) -> Tensor:
        """(n, channels, pixels) -> (n, width, reduced pixels)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return functional.relu(x)

    def embedding(self, x: Tensor) -> Tensor:
        """(n, channels, pixels) -> (n, 4 width) activations before the last layer of the part that does not know shifts."""
        segments = functional.adaptive_avg_pool1d(self.features(x), SEGMENTS).flatten(1)
        return self.fixed[:2](segments)

    def forward(self, x: Tensor) -> Tensor:
        """(1, n, channels, pixels) -> (1, n, size)."""
        (x,) = x
        features = self.features(x)
        segments = functional.adaptive_avg_pool1d(features, SEGMENTS).flatten(1)
        assert isinstance(self.position, Tensor)
        scores = _interpolated(self.full(x), self.position)
        scores = scores + _interpolated(self.reduced(features), self.position / self.stride)
        return (scores + self.fixed(segments))[None]


def _interpolated(values: Tensor, position: Tensor) -> Tensor:
    """(n, size) values (n, shifts) at positions (size,) between their numbers, linear."""
    lower = position.long()
    fraction = position - lower
    return values[:, lower] * (1 - fraction) + values[:, lower + 1] * fraction
