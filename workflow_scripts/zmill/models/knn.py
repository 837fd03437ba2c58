"""K nearest neighbors: the redshifts of the nearest training galaxies, as a mean and as a density."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional

from zmill.inputs.base import LabelledBatch
from zmill.inputs.photometry import scaling
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.features import Columns
from zmill.models import base
from zmill.models.base import Model, selection_rows
from zmill.networks.losses import mean_crps
from zmill.pdf.grid import Grid
from zmill.sections import Several, Text

WIDTHS = (0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08)
"""Kernel widths in 1 + z to select from on validation rows."""
PAIRS = 1 << 26
"""Distances in memory at a time on a GPU."""


class KNNSettings(base.Settings):
    """Settings of the nearest neighbors."""

    k: Several[Annotated[int, Field(ge=1, le=2**20)]] = (3, 5, 7, 11, 15, 21, 31, 51, 71, 101)
    """Numbers of neighbors to select from on validation rows, or a single number."""
    scaling: Literal["minmax", "standard", "robust"] = "standard"
    """Scaling of the columns: by extremes, by mean and standard deviation, or by median and quartiles."""
    weights: Literal["uniform", "distance"] = "uniform"
    """Weight of a neighbor: 1, or the inverse of its distance."""
    choose: Literal["crps", "mse"] = "crps"
    """Metric that selects K: the CRPS of the density, or the squared error of the mean as published."""
    colors: bool = False
    """Adjacent colors as further inputs."""
    extra: tuple[Text, ...] = ()
    """Further inputs: `ebv` or names of the survey's columns.extra."""


class Neighbors(Model):
    """Euclidean neighbors in scaled magnitudes; each contributes a Gaussian of width `width` (1 + z) to the density.

    The mean of the density is the (weighted) mean of the neighbors' redshifts: KNN regression.
    """

    Settings = KNNSettings
    min_train = 50

    settings: KNNSettings

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        s, valid = self.settings, valid.inside(self.context.grid)
        self._set_rows(train, device)
        judged = selection_rows(valid)
        curve = self._curve(judged.batch, torch.as_tensor(judged.z, dtype=torch.float32))
        best = min(curve, key=lambda point: (point[s.choose], point["k"]))
        self.k, self.width = int(best["k"]), float(best["width"])
        self._prepare()
        log(f"k = {self.k}, kernel width {self.width:g} (1 + z), selected by {s.choose} on {len(judged):,} rows")
        return {"k": self.k, "width": self.width, "curve": curve}

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        self._set_rows(rows, device)

    def _set_rows(self, rows: LabelledBatch, device: torch.device) -> None:
        """Store the scaled rows among which neighbors are searched."""
        rows = rows.inside(self.context.grid)
        self.columns = Columns.fit(rows.batch, self.settings.extra, self.settings.colors)
        raw = self.columns(rows.batch)
        self.scaler = scaling.fit(self.settings.scaling, raw)
        self.points = self.scaler(raw)
        self.z = torch.as_tensor(rows.z, dtype=torch.float32)
        self.weight = torch.as_tensor(rows.weight / rows.weight.mean(), dtype=torch.float32)
        self.to(device)

    def _curve(self, batch: Photometry, z: Tensor) -> list[dict[str, float]]:
        """Scores of every K on validation rows, with the kernel width of the lowest CRPS for each."""
        grid, z = self.context.grid, z.to(self.device)
        usable = [k for k in self.settings.k if k < len(self.z)] or [len(self.z) - 1]
        distance, neighbor = self._search(batch, usable[-1])
        curve = []
        for k in usable:
            near, weight = neighbor[:, :k], self._weights(distance[:, :k], neighbor[:, :k])
            scores = {
                width: mean_crps(self._mixture(near, weight, kernel(grid, width, self.device)), z, grid)
                for width in WIDTHS
            }
            width = min(scores, key=lambda w: scores[w])
            mse = float(((weight * self.z[near]).sum(1) - z).square().mean())
            curve.append({"k": k, "mse": mse, "crps": scores[width], "width": width})
        return curve

    @torch.inference_mode()
    def predict(self, batch: Photometry) -> Tensor:
        distance, neighbor = self._search(batch, self.k)
        return self._mixture(neighbor, self._weights(distance, neighbor), self._kernel)

    def _search(self, batch: Photometry, k: int) -> tuple[Tensor, Tensor]:
        """Distances (n, k), nearest first, and training row numbers (n, k)."""
        x = self.scaler(self.columns(batch).to(self.device))
        if self.device.type == "cpu":
            return self._tree.query(x, k)
        squared = self.points.square().sum(1)
        parts = []
        for part in x.split(max(1, PAIRS // len(self.points))):
            near = torch.addmm(squared, part, self.points.T, alpha=-2).topk(k, largest=False).indices
            # the product form loses digits for close pairs: the distances of the nearest few are computed again
            exact = (part[:, None] - self.points[near]).square().sum(2).sqrt()
            order = exact.argsort(1)
            parts.append((exact.gather(1, order), near.gather(1, order)))
        distances, neighbors = zip(*parts, strict=True)
        return torch.cat(distances), torch.cat(neighbors)

    def _weights(self, distance: Tensor, neighbor: Tensor) -> Tensor:
        """(n, k) weights of the neighbors, each row summing to 1."""
        weight = self.weight[neighbor]
        if self.settings.weights == "distance":
            weight = weight / distance.clamp_min(1e-6)
        return weight / weight.sum(1, keepdim=True)

    def _mixture(self, neighbor: Tensor, weight: Tensor, kernel: Tensor) -> Tensor:
        """(n, size) densities of neighbors (n, k)."""
        return mixture(self._cell[neighbor], self._fraction[neighbor], weight, kernel)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {
            "inputs": self.points,
            "z": self.z,
            "weight": self.weight,
            "fill": self.columns.fill,
            "offset": self.scaler.offset,
            "scale": self.scaler.scale,
        }
        return tensors, {"k": self.k, "width": self.width}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.columns = Columns(self.settings.extra, self.settings.colors, tensors["fill"])
        self.scaler = scaling.Scaler(tensors["offset"], tensors["scale"])
        self.points, self.z, self.weight = tensors["inputs"], tensors["z"], tensors["weight"]
        self.k, self.width = int(facts["k"]), float(facts["width"])
        self.to(torch.device("cpu"))
        self._prepare()

    def to(self, device: torch.device) -> None:
        super().to(device)
        grid = self.context.grid
        self.scaler = self.scaler.to(device)
        self.points, self.z, self.weight = (t.to(device) for t in (self.points, self.z, self.weight))
        self._cell, self._fraction = cells(self.z, grid)
        if device.type == "cpu":
            self._tree = Tree(self.points)
        if hasattr(self, "width"):
            self._prepare()

    def _prepare(self) -> None:
        self._kernel = kernel(self.context.grid, self.width, self.device)


class Tree:
    """Exact neighbors from a k-d tree along the principal axes of the points.

    The rotation preserves distances and lets the tree search fewer leaves. Directions in which the points do not vary (as with colors
    and their magnitudes together) are left out: along these a query is equally far from all points.
    """

    FLAT = 1e-5
    """Directions with less than this fraction of the largest spread are left out."""

    def __init__(self, points: Tensor) -> None:
        values = points.double().numpy()
        self.center = values.mean(0)
        _, spread, axes = np.linalg.svd(values - self.center, full_matrices=False)
        self.axes = axes[(spread > self.FLAT * spread[0]) | (np.arange(len(spread)) == 0)].T
        self.tree = cKDTree((values - self.center) @ self.axes, leafsize=32)

    def query(self, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Distances (n, k) float32, nearest first, and row numbers (n, k) of the nearest to each of the points."""
        values = points.double().numpy() - self.center
        inside = values @ self.axes
        distance, neighbor = self.tree.query(inside, np.arange(1, k + 1), workers=torch.get_num_threads())
        if self.axes.shape[1] < self.axes.shape[0]:
            outside = np.square(values).sum(1) - np.square(inside).sum(1)
            distance = np.sqrt(np.square(distance) + outside.clip(0)[:, None])
        return torch.from_numpy(distance).float(), torch.from_numpy(neighbor)


def cells(z: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """The grid cell of each redshift, and the fraction of the cell that lies below it."""
    position = (z - grid.z_min) / grid.step
    cell = position.long().clamp(0, grid.size - 2)
    return cell, position - cell


def mixture(cell: Tensor, fraction: Tensor, weight: Tensor, kernel: Tensor) -> Tensor:
    """Densities of rows from their neighbors: rows of the kernel, interpolated between the two grid points around each redshift.

    Parameters
    ----------
    cell, fraction, weight : (n, k) of the neighbors of each row, from `cells`; each row of weights sums to 1.
    kernel : (size, size) from `kernel`.

    Returns
    -------
    (n, size) densities.
    """
    right = weight * fraction
    rows, weights = torch.cat([cell, cell + 1], 1), torch.cat([weight - right, right], 1)
    return functional.embedding_bag(rows, kernel, per_sample_weights=weights, mode="sum")


def kernel(grid: Grid, width: float, device: torch.device) -> Tensor:
    """(size, size): row j is the density of a galaxy at grid point j, a Gaussian of width `width` (1 + z_j)."""
    z = grid.tensor(device)
    return grid.normalize(torch.exp(-0.5 * ((z - z[:, None]) / (width * (1 + z[:, None]))) ** 2))


MODEL = Neighbors
