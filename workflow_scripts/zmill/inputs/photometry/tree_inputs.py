"""Inputs of decision trees: luptitudes, all colors, errors and masks.

A tree splits one input at a time, so that all colors must be inputs; a network can form them itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zmill.inputs.photometry.batch import MAGNITUDES, Photometry
from zmill.inputs.photometry.features import Fluxes, softening_of


@dataclass(frozen=True)
class TreeInputs:
    """Photometry as a matrix. Each column is centered on its median over the training rows; missing values are 0.

    softening : (bands,) nJy of the luptitudes.
    center : (columns,) medians.
    """

    extra: tuple[str, ...]
    softening: Tensor
    center: Tensor

    @classmethod
    def fit(cls, train: Photometry, extra: tuple[str, ...]) -> TreeInputs:
        """Fit softening and medians on training rows."""
        fluxes = Fluxes.of(train, extra)
        softening = softening_of(fluxes)
        plain = cls(extra, softening, torch.zeros(1))
        return cls(extra, softening, torch.nan_to_num(plain._raw(fluxes).nanmedian(0).values, nan=0.0))

    def __call__(self, batch: Photometry) -> Tensor:
        """(n, columns) float32 on the CPU, without NaN."""
        return torch.nan_to_num(self._raw(Fluxes.of(batch, self.extra)) - self.center, nan=0.0)

    def _raw(self, fluxes: Fluxes) -> Tensor:
        luptitude = -MAGNITUDES * (torch.asinh(fluxes.flux / (2 * self.softening)) + self.softening.log())
        luptitude = torch.where(fluxes.observed, luptitude, torch.nan)
        blue, red = torch.triu_indices(luptitude.shape[1], luptitude.shape[1], 1)
        noise = torch.where(fluxes.observed, torch.log(fluxes.error / self.softening + 1e-6), torch.nan)
        masks = torch.cat([fluxes.undetected, fluxes.observed], 1).float()
        return torch.cat([luptitude, luptitude[:, blue] - luptitude[:, red], noise, masks, fluxes.other], 1)
