"""Out-of-distribution detector: whether there is a training row similar to a given row.

The measure is the distance to the nearest of up to 128 k-means centers of the training rows in the whitened space of their
summary features (`Batch.summary_features`; of photometry: the reference magnitude and the adjacent colors). The threshold is the 99th percentile of the distances of
training rows that were held out from the centers. The cost is one matrix product per batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from zmill.inputs.base import Batch
from zmill.kernels.nearest import farther_than

CENTERS = 128
ROWS_PER_CENTER = 20
MAX_ROWS = 50_000
PERCENTILE = 99.0


@dataclass
class Detector:
    """The out-of-distribution detector of a set of training rows.

    fill : (features,) median features, which replace missing ones.
    scale : (features, k) whitening matrix, applied after subtraction of `fill`.
    centers : (k + 1, centers) rows 0…k−1: −2 × center, row k: squared length of the center.
    threshold : squared distance above which a row is out of distribution.
    """

    fill: Tensor
    scale: Tensor
    centers: Tensor
    threshold: float

    def distance2(self, batch: Batch) -> Tensor:
        """(n,) squared distance to the nearest center, in whitened space."""
        white = self._white(_features(batch))
        nearest = torch.addmm(self.centers[-1], white, self.centers[:-1]).amin(1)
        return (nearest + (white * white).sum(1)).clamp_min(0)

    def __call__(self, batch: Batch) -> NDArray[np.bool_]:
        """(n,) whether the row is out of distribution: the comparison of `distance2` with the threshold."""
        arrays = (one.numpy() for one in (self.fill, self.scale, self.centers))
        return farther_than(self.threshold, _features(batch), *arrays)

    def _white(self, features: NDArray[np.float32]) -> Tensor:
        values = torch.from_numpy(features)
        values = torch.where(torch.isfinite(values), values - self.fill, torch.zeros_like(values))
        return values @ self.scale

    def state(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Tensors and JSON-ready facts."""
        tensors = {"fill": self.fill, "scale": self.scale, "centers": self.centers}
        return tensors, {"threshold": self.threshold}

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], facts: dict[str, float]) -> Detector:
        """The reverse of `state`."""
        return cls(tensors["fill"], tensors["scale"], tensors["centers"], float(facts["threshold"]))


def fit(train: Batch, seed: int) -> Detector:
    """Fit the detector on training rows; one fifth of them is held out from the centers and sets the threshold."""
    # Only here: it takes as long to import as torch, and jobs that predict do without.
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(seed)
    order = rng.permutation(len(train))[:MAX_ROWS]
    features = _features(train.select(order)).astype(np.float64)
    held_out = np.arange(len(order)) % 5 == 0
    known = np.where(np.isfinite(features).any(0), features, 0.0)
    fill = np.nanmedian(known, axis=0)
    centered = np.where(np.isfinite(features), features - fill, 0.0)
    scale = _whitening(centered[~held_out])
    white = centered @ scale
    count = max(1, min(CENTERS, int((~held_out).sum()) // ROWS_PER_CENTER))
    with threadpool_limits(1):
        found = KMeans(count, n_init=1, random_state=seed, max_iter=50).fit(white[~held_out]).cluster_centers_
    detector = Detector(
        torch.as_tensor(fill, dtype=torch.float32),
        torch.as_tensor(scale, dtype=torch.float32),
        torch.as_tensor(np.vstack([-2 * found.T, (found**2).sum(1)]), dtype=torch.float32),
        np.inf,
    )
    distances = detector.distance2(train.select(order[held_out])).double().numpy()
    detector.threshold = float(np.percentile(distances, PERCENTILE))
    return detector


def _features(batch: Batch) -> NDArray[np.float32]:
    """(n, k) summary features."""
    return batch.summary_features().astype(np.float32)


def _whitening(centered: NDArray[np.float64]) -> NDArray[np.float64]:
    """(features, k) rotation and scaling to unit variance; directions without variance are dropped.

    Values beyond 5 robust standard deviations are clipped first, so that a few outliers do not dominate the covariance.
    """
    spread = 1.4826 * np.median(np.abs(centered), axis=0)
    spread = np.where(spread > 0, spread, centered.std(0) + 1e-12)
    clipped = np.clip(centered, -5 * spread, 5 * spread)
    values, vectors = np.linalg.eigh(np.cov(clipped, rowvar=False).reshape(centered.shape[1], -1))
    kept = values > 1e-6 * max(values.max(), 1e-12)
    return vectors[:, kept] / np.sqrt(values[kept])
