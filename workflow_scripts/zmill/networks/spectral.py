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
"""Inputs per pixel: flux, compressed signal-to-noise ratio, and whether the pixel is good."""
SEGMENTS = 16
"""Segments over which features are averaged for the part of the network that does not know shifts."""
KERNEL = 5
LONGEST = 512
"""Largest number of pixels of the residual blocks; features of longer spectra are computed at every third, fourth, … pixel."""
SHORTEST = 150
"""Features of spectra of at least so many pixels are computed at every second one: a spectrograph has two pixels or more in its resolution."""
FINEST = 8
"""Largest number of values of a correlation per pixel."""
LEAK = 0.1
"""Slope of the activation below 0: units that are never active would have no gradient, and all embeddings would be the same."""
FARTHEST_LEVEL = 4.0
"""Standard deviations of the training rows to which the logarithm of the level is clipped."""


class Correlation(nn.Module):
    """Correlation of features (n, channels, pixels) with learned templates at `shifts` shifts, by Fourier transforms.

    A template has `pixels + shifts − 1` values: all rest-frame pixels that are seen at any of the redshifts. Between shifts of complete
    pixels, values are those of the trigonometric interpolation: the peak of a correlation is known to a fraction of a pixel.

    finer : number of values per pixel.
    """

    def __init__(self, channels: int, pixels: int, shifts: int, finer: int = 1) -> None:
        super().__init__()
        self.finer, self.values = finer, (shifts - 1) * finer + 1
        self.length = fast_length(pixels + shifts - 1)
        self.template = nn.Parameter(torch.randn(channels, pixels + shifts - 1) / math.sqrt(channels * pixels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, pixels) -> (n, values), from the smallest redshift to the largest."""
        of_inputs = torch.fft.rfft(x.float(), self.length).conj()
        of_templates = torch.fft.rfft(self.template.float(), self.length)
        product = torch.einsum("ncf,cf->nf", of_inputs, of_templates)
        if self.finer > 1 and self.length % 2 == 0:  # the highest frequency then stands for both of its signs
            product = torch.cat([product[:, :-1], product[:, -1:] / 2], 1)
        found = torch.fft.irfft(product, self.finer * self.length, norm="forward")[:, : self.values]
        return found.flip(1) / self.length


def fast_length(least: int) -> int:
    """The smallest number from `least` on that has no prime factors but 2, 3 and 5: Fourier transforms of others are several times slower."""
    number = least
    while True:
        rest = number
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return number
        number += 1


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

    level: Tensor
    """Mean and standard deviation of the logarithms of the levels of the training rows."""

    def __init__(self, pixels: int, step: float, z: Tensor, width: int, blocks: int) -> None:
        super().__init__()
        self.stride = max(math.ceil(pixels / LONGEST), 1 if pixels < SHORTEST else 2)
        reduced = (pixels - 1) // self.stride + 1
        self.stem = nn.Conv1d(CHANNELS, width, 2 * self.stride + KERNEL, self.stride, self.stride + KERNEL // 2)
        self.blocks = nn.ModuleList(Block(width, 2 ** (number % 4)) for number in range(blocks))
        position = ((1 + z.double()).log() - (1 + z[0].double()).log()) / step
        step_of_grid = float(position.diff().min())
        for name, channels, length, pixel in (("full", CHANNELS, pixels, 1), ("reduced", width, reduced, self.stride)):
            shifts = math.ceil(float(position[-1]) / pixel) + 2
            finer = min(FINEST, math.ceil(2 * pixel / step_of_grid))
            self.add_module(name, Correlation(channels, length, shifts, finer))
        self.register_buffer("position", position.float(), persistent=False)
        self.fixed = nn.Sequential(
            nn.Linear(width * SEGMENTS + 1, 4 * width), nn.LeakyReLU(LEAK), nn.Linear(4 * width, len(z))
        )
        self.register_buffer("level", torch.tensor([0.0, 1.0]))

    def fit_level(self, level: Tensor) -> None:
        """Fit the scaling of the logarithms of the levels of the training rows (n,)."""
        self.level = torch.stack([level.mean(), level.std().clamp_min(1e-3)])

    def features(self, x: Tensor) -> Tensor:
        """(n, channels, pixels) -> (n, width, reduced pixels)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return functional.relu(x)

    def segments(self, features: Tensor, level: Tensor) -> Tensor:
        """(n, inputs) what the part that does not know shifts is given."""
        scaled = ((level - self.level[0]) / self.level[1]).clamp(-FARTHEST_LEVEL, FARTHEST_LEVEL)
        averages = functional.adaptive_avg_pool1d(features, SEGMENTS).flatten(1)
        return torch.cat([averages, scaled[:, None].to(averages.dtype)], 1)

    def embedding(self, x: Tensor, level: Tensor) -> Tensor:
        """(n, 4 width) activations before the last layer of the part that does not know shifts."""
        return self.fixed[:2](self.segments(self.features(x), level))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(n, channels, pixels), and logarithms of the levels (n,) -> (n, size)."""
        features = self.features(x)
        assert isinstance(self.position, Tensor)
        assert isinstance(self.full, Correlation) and isinstance(self.reduced, Correlation)
        scores = _interpolated(self.full(x), self.position * self.full.finer)
        scores = scores + _interpolated(self.reduced(features), self.position * (self.reduced.finer / self.stride))
        return scores + self.fixed(self.segments(features, level))


def _interpolated(values: Tensor, position: Tensor) -> Tensor:
    """(n, size) values (n, shifts) at positions (size,) between their numbers, linear."""
    lower = position.long()
    fraction = position - lower
    return values[:, lower] * (1 - fraction) + values[:, lower + 1] * fraction
