"""Color-matched nearest neighbors: training galaxies whose colors agree with those of a galaxy within its errors.

Graham et al. 2018 (CMNN): Mahalanobis distance in the colors, a threshold of chi-squared with as many degrees of freedom
as the two galaxies have colors in common.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.special import chdtri
from torch import Tensor
from torch.nn import functional

from zmill.inputs.base import LabelledBatch
from zmill.inputs.photometry.batch import MAGNITUDES, ZERO_POINT, Photometry
from zmill.inputs.photometry.features import Fluxes
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.models import base
from zmill.models.base import Model, selection_rows
from zmill.models.knn import WIDTHS, kernel
from zmill.networks.losses import mean_crps
from zmill.sections import Several

PAIRS = 1 << 20
"""Distances in memory at a time on a CPU: they stay in its cache."""
PAIRS_GPU = 1 << 26
UNKNOWN = 0.05
"""Assumed error in magnitudes of a measurement of unknown error."""


class CMNNSettings(base.Settings):
    """Settings of the color-matched neighbors."""

    ppf: float = Field(0.68, gt=0, lt=1)
    """Fraction of galaxies of the same true colors that pass the threshold."""
    min_neighbors: int = Field(10, ge=1, le=2**20)
    """Least number of neighbors, taken where fewer galaxies pass the threshold."""
    max_neighbors: int = Field(200, ge=1, le=2**20)
    """Largest number of neighbors, taken where more galaxies pass the threshold."""
    weights: Literal["likelihood", "inverse", "uniform"] = "likelihood"
    """Weight of a neighbor at the squared distance D: exp(-D/2), 1/D, or 1."""
    floor: Several[Annotated[float, Field(ge=0, le=10)]] = (0.0, 0.01, 0.02, 0.03, 0.05)
    """Magnitudes added in quadrature to the errors; selected on validation rows."""
    magnitude: Several[Annotated[float, Field(ge=0, le=100)]] = (0.0, 0.5, 1.0, 2.0)
    """Error in magnitudes of the reference magnitude, used as one more color; 0: not used. Selected on validation rows."""


class ColorNeighbors(Model):
    """Redshifts of the color-matched training galaxies, each a Gaussian of width `width` (1 + z)."""

    Settings = CMNNSettings
    quick = {"floor": 0.02, "magnitude": 1.0}
    min_train = 50

    settings: CMNNSettings

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        s, grid = self.settings, self.context.grid
        valid = valid.inside(grid)
        self._set_rows(train, device)
        judged = selection_rows(valid)
        fluxes = Fluxes.of(judged.batch, ())
        z = torch.as_tensor(judged.z, dtype=torch.float32, device=device)
        curve = []
        for floor in s.floor:
            for magnitude in s.magnitude:
                self.floor, self.magnitude = floor, magnitude
                histogram = self._histogram(fluxes)
                for width in WIDTHS:
                    score = mean_crps(histogram @ kernel(grid, width, device), z, grid)
                    curve.append({"floor": floor, "magnitude": magnitude, "width": width, "crps": score})
        best = min(curve, key=lambda point: point["crps"])
        self.floor, self.magnitude, self.width = best["floor"], best["magnitude"], best["width"]
        self._kernel = kernel(grid, self.width, device)
        log(f"error floor {self.floor:g} mag, magnitude error {self.magnitude:g}, kernel {self.width:g} (1 + z)")
        return {"floor": self.floor, "magnitude": self.magnitude, "width": self.width, "curve": curve}

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        self._set_rows(rows, device)

    def _set_rows(self, rows: LabelledBatch, device: torch.device) -> None:
        """Store the colors of the rows."""
        rows = rows.inside(self.context.grid)
        colors, variance = self._colors(Fluxes.of(rows.batch, ()), 0.0)
        known = torch.isfinite(variance)
        self.center = torch.nan_to_num(torch.where(known, colors, torch.nan).nanmedian(0).values, nan=0.0)
        self.colors = torch.where(known, colors - self.center, 0.0)
        self.known = known
        self.z = torch.as_tensor(rows.z, dtype=torch.float32)
        self.weight = torch.as_tensor(rows.weight / rows.weight.mean(), dtype=torch.float32)
        self._find_patterns()
        self.to(device)

    def _find_patterns(self) -> None:
        """Find the patterns of known colors (patterns, colors), and the pattern of each training row (patterns, rows)."""
        patterns, own = torch.unique(self.known, dim=0, return_inverse=True)
        self._patterns = patterns.float()
        self._of_pattern = functional.one_hot(own, len(patterns)).float().T.contiguous()

    @torch.inference_mode()
    def predict(self, batch: Photometry) -> Tensor:
        return self.densities(Fluxes.of(batch, (), self.device))

    def densities(self, fluxes: Fluxes, without: Tensor | None = None) -> Tensor:
        """(n, grid.size) normalized densities of fluxes on the model's device.

        without : (n, r) training rows, by number among those inside the grid, that are excluded as neighbors; -1 for none.
        """
        return self._histogram(fluxes, without) @ self._kernel

    def _colors(self, fluxes: Fluxes, floor: float) -> tuple[Tensor, Tensor]:
        """(n, bands) adjacent colors and, last, the reference magnitude; their variances, infinite where not measured."""
        measured = fluxes.observed & ~fluxes.undetected & (fluxes.flux > 0)
        error = torch.nan_to_num(MAGNITUDES * fluxes.error / fluxes.flux, nan=UNKNOWN, posinf=UNKNOWN)
        variance = torch.where(measured, error.square() + floor**2, torch.inf)
        value = torch.where(measured, ZERO_POINT - MAGNITUDES * fluxes.flux.log(), 0.0)
        reference = self.context.of(PhotometryKind).reference
        colors = torch.cat([value[:, :-1] - value[:, 1:], value[:, reference, None]], 1)
        return colors, torch.cat([variance[:, :-1] + variance[:, 1:], variance[:, reference, None]], 1)

    def _histogram(self, fluxes: Fluxes, without: Tensor | None = None) -> Tensor:
        """(n, size) weights of the neighbors on the grid points, each row summing to 1."""
        s, size = self.settings, self.context.grid.size
        colors, variance = (t.to(self.device) for t in self._colors(fluxes, self.floor))
        known = torch.isfinite(variance)
        weight = torch.where(known, 1 / variance.clamp_min(1e-8), 0.0)
        weight[:, -1] = known[:, -1] * (1 / self.magnitude**2 if self.magnitude else 0.0)
        colors = torch.where(known, colors - self.center, 0.0)
        counted = (weight > 0).float()
        out = torch.zeros(len(colors), size, device=self.device)
        number = min(s.max_neighbors, len(self.z))
        pairs = PAIRS if self.device.type == "cpu" else PAIRS_GPU
        for rows in torch.arange(len(colors), device=self.device).split(max(1, pairs // len(self.z))):
            w, c = weight[rows], colors[rows]
            # sum_k w_k (c_k - t_k)^2 over the colors that both have, as one product
            squared = torch.cat([w * c * c, -2 * w * c, w], 1) @ self._products
            # with few colors in common the distance is always small: it is compared with chi-squared of that many degrees of freedom
            free = counted[rows] @ self._patterns.T
            nearness = (1 / self._threshold)[free.long()] @ self._of_pattern
            nearness.mul_(squared.clamp_min_(0))
            if without is not None:
                row, column = (without[rows] >= 0).nonzero(as_tuple=True)
                nearness[row, without[rows][row, column]] = torch.inf
            near = nearness.topk(number, largest=False, sorted=True)
            distance = squared.gather(1, near.indices)
            kept = (near.values <= 1) | (torch.arange(number, device=self.device) < s.min_neighbors)
            contribution = self._weight_of(distance) * self.weight[near.indices] * kept
            contribution = contribution / contribution.sum(1, keepdim=True).clamp_min(1e-30)
            right = contribution * self._fraction[near.indices]
            cell = self._cell[near.indices]
            part = torch.zeros(len(rows), size, device=self.device)
            part.scatter_add_(1, cell, contribution - right).scatter_add_(1, cell + 1, right)
            out[rows] = part
        return out

    def _weight_of(self, distance: Tensor) -> Tensor:
        """Weights of neighbors from their squared distances, nearest first."""
        if self.settings.weights == "likelihood":
            return torch.exp(-0.5 * (distance - distance.amin(1, keepdim=True)))
        return 1 / distance.clamp_min(1e-3) if self.settings.weights == "inverse" else torch.ones_like(distance)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        names = ("center", "colors", "known", "z", "weight")
        facts = {"floor": self.floor, "magnitude": self.magnitude, "width": self.width}
        return {name: getattr(self, name) for name in names}, facts

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.center, self.colors, self.known = tensors["center"], tensors["colors"], tensors["known"]
        self.z, self.weight = tensors["z"], tensors["weight"]
        self.floor, self.magnitude, self.width = (float(facts[name]) for name in ("floor", "magnitude", "width"))
        self._find_patterns()
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        grid = self.context.grid
        for name in ("center", "colors", "known", "z", "weight"):
            setattr(self, name, getattr(self, name).to(device))
        self._products = torch.cat([self.known.float(), self.colors, self.colors.square()], 1).T.contiguous()
        self._patterns, self._of_pattern = self._patterns.to(device), self._of_pattern.to(device)
        position = (self.z - grid.z_min) / grid.step
        self._cell = position.long().clamp(0, grid.size - 2)
        self._fraction = position - self._cell
        free = np.arange(self.colors.shape[1] + 1)
        threshold = np.where(free > 0, chdtri(np.maximum(free, 1), 1 - self.settings.ppf), 1e-6)
        self._threshold = torch.as_tensor(threshold, dtype=torch.float32, device=device)
        if hasattr(self, "width"):
            self._kernel = kernel(grid, self.width, device)


MODEL = ColorNeighbors
