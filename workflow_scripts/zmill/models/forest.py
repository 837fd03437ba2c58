"""Random forest whose leaves keep their training galaxies: a density is the distribution of redshifts in the leaves of a row.

Quantile regression forests (Meinshausen 2006); TPZ (Carrasco Kind & Brunner 2013) is such a forest. The trees are
grown by scikit-learn, stored as plain arrays, and evaluated in torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from zmill.inputs.base import LabelledBatch
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.tree_inputs import TreeInputs
from zmill.models import base
from zmill.models.base import Model, selection_rows
from zmill.models.knn import WIDTHS, kernel
from zmill.networks.losses import mean_crps
from zmill.sections import Text

ROWS = 2048
"""Rows followed through the trees at a time."""


class ForestSettings(base.Settings):
    """Settings of the forest."""

    trees: int = Field(100, ge=1, le=10_000)
    kind: Literal["extra", "random"] = "extra"
    """`extra`: split points drawn at random, every tree sees all rows; `random`: the best split points, bootstrapped rows."""
    leaf_rows: int = Field(3, ge=1, le=2**30)
    """Fewest training rows in a leaf."""
    features: float = Field(0.5, gt=0, le=1)
    """Fraction of the inputs considered at a split."""
    extra: tuple[Text, ...] = ()
    """Further inputs: `ebv` or names of the survey's columns.extra."""


class Forest(Model):
    """Each tree gives the training galaxies of its leaf equal weights; each galaxy is a Gaussian of width `width` (1 + z)."""

    Settings = ForestSettings
    quick = {"trees": 15}
    min_train = 50

    settings: ForestSettings

    NAMES = ("roots", "feature", "threshold", "left", "right", "start", "count", "members", "z", "weight")

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        grid, valid = self.context.grid, valid.inside(self.context.grid)
        self._grow(train, device)
        judged = selection_rows(valid)
        z = torch.as_tensor(judged.z, dtype=torch.float32, device=device)
        histogram = self._histogram(judged.batch)
        curve = [
            {"width": width, "crps": mean_crps(histogram @ kernel(grid, width, device), z, grid)} for width in WIDTHS
        ]
        self.width = min(curve, key=lambda point: point["crps"])["width"]
        self._kernel = kernel(grid, self.width, device)
        log(f"{self.settings.trees} trees of {len(self.feature):,} nodes in all; kernel {self.width:g} (1 + z)")
        return {"nodes": len(self.feature), "width": self.width, "curve": curve}

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        self._grow(rows, device)

    def _grow(self, rows: LabelledBatch, device: torch.device) -> None:
        """Grow the trees on rows and store the rows of each leaf."""
        from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor

        s, rows = self.settings, rows.inside(self.context.grid)
        self.features = TreeInputs.fit(rows.batch, s.extra)
        x = self.features(rows.batch).numpy()
        kind = ExtraTreesRegressor if s.kind == "extra" else RandomForestRegressor
        forest = kind(
            s.trees,
            min_samples_leaf=s.leaf_rows,
            max_features=s.features,
            random_state=self.context.seed,
            n_jobs=torch.get_num_threads(),
        ).fit(x, np.log1p(rows.z), sample_weight=rows.weight)
        self._store_nodes([tree.tree_ for tree in forest.estimators_])
        self.z = torch.as_tensor(rows.z, dtype=torch.float32)
        self.weight = torch.as_tensor(rows.weight / rows.weight.mean(), dtype=torch.float32)
        self.start, self.count = torch.zeros_like(self.feature), torch.zeros_like(self.feature)
        self.members = torch.zeros(1, dtype=torch.int64)
        self.to(device)
        self._store_members(self._leaves(torch.from_numpy(x).to(device)))
        self.to(device)

    def _store_nodes(self, trees: list[Any]) -> None:
        """Store the nodes of all trees in one array; the children of a leaf are the leaf itself."""
        sizes = [tree.node_count for tree in trees]
        first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        own = np.arange(sum(sizes))
        offset = np.repeat(first, sizes)
        leaf = np.concatenate([tree.children_left < 0 for tree in trees])

        def children(name: str) -> Tensor:
            there = np.concatenate([getattr(tree, name) for tree in trees]) + offset
            return torch.from_numpy(np.where(leaf, own, there).astype(np.int64))

        self.left, self.right = children("children_left"), children("children_right")
        feature = np.concatenate([tree.feature for tree in trees])
        self.feature = torch.from_numpy(np.where(leaf, 0, feature).astype(np.int64))
        threshold = np.concatenate([tree.threshold for tree in trees])
        near = threshold.astype(np.float32)
        # inputs are float32: a threshold rounded down splits them like the float64 threshold
        near = np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)
        self.threshold = torch.from_numpy(near)
        self.roots = torch.from_numpy(first.astype(np.int64))
        self.depth = max(tree.max_depth for tree in trees)

    def _store_members(self, leaves: Tensor) -> None:
        """Sort the training rows (n, trees) into their leaves: `members[start[leaf] : start[leaf] + count[leaf]]`."""
        flat = leaves.flatten()
        order = flat.argsort(stable=True)
        self.members = (order // leaves.shape[1]).cpu()
        self.count = torch.bincount(flat, minlength=len(self.feature)).cpu()
        self.start = self.count.cumsum(0) - self.count

    def _leaves(self, x: Tensor) -> Tensor:
        """(n, trees) node numbers of the leaves of inputs (n, columns)."""
        parts = []
        for part in x.split(ROWS):
            node = self.roots.expand(len(part), -1)
            for _ in range(self.depth):
                goes_left = part.gather(1, self.feature[node]) <= self.threshold[node]
                node = torch.where(goes_left, self.left[node], self.right[node])
            parts.append(node)
        return torch.cat(parts)

    def _histogram(self, batch: Photometry) -> Tensor:
        """(n, size) weights of the training galaxies on the grid points, each row summing to 1."""
        size, trees = self.context.grid.size, len(self.roots)
        out = torch.zeros(len(batch), size, device=self.device)
        for rows in torch.arange(len(batch)).split(ROWS):
            first, last = int(rows[0]), int(rows[-1]) + 1
            leaf = self._leaves(self.features(batch[first:last]).to(self.device)).flatten()
            count = self.count[leaf]
            pair = torch.repeat_interleave(count)  # the (row, tree) of each member
            position = torch.arange(len(pair), device=self.device) - (count.cumsum(0) - count)[pair]
            member = self.members[self.start[leaf][pair] + position]
            weight = self.weight[member] * (1 / self._mass[leaf])[pair] / trees
            at = (pair // trees) * size + self._cell[member]
            right = weight * self._fraction[member]
            flat = torch.zeros((last - first) * size, device=self.device)
            flat.index_add_(0, at, weight - right).index_add_(0, at + 1, right)
            out[first:last] = flat.view(-1, size)
        return out

    @torch.inference_mode()
    def predict(self, batch: Photometry) -> Tensor:
        return self._histogram(batch) @ self._kernel

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {name: getattr(self, name) for name in self.NAMES}
        tensors |= {"softening": self.features.softening, "center": self.features.center}
        return tensors, {"width": self.width, "depth": self.depth}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        for name in self.NAMES:
            setattr(self, name, tensors[name])
        self.features = TreeInputs(self.settings.extra, tensors["softening"], tensors["center"])
        self.width, self.depth = float(facts["width"]), int(facts["depth"])
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        grid = self.context.grid
        for name in self.NAMES:
            setattr(self, name, getattr(self, name).to(device))
        position = (self.z - grid.z_min) / grid.step
        self._cell = position.long().clamp(0, grid.size - 2)
        self._fraction = position - self._cell
        leaf = torch.repeat_interleave(self.count) if len(self.members) > 1 else self.members
        self._mass = torch.zeros(len(self.feature), device=device).index_add_(0, leaf, self.weight[self.members])
        if hasattr(self, "width"):
            self._kernel = kernel(grid, self.width, device)


MODEL = Forest
