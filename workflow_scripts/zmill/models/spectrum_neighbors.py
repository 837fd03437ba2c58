"""Neighbors of spectra: the redshifts of the training spectra whose embeddings by the flagship are nearest.

The spread of their redshifts is the aleatoric part of the uncertainty. Their distance is the epistemic part: a spectrum that is far from
all training spectra is out of distribution.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from zmill.catalog.sizes import BATCH_BYTES
from zmill.chunks import row_chunks
from zmill.inputs.base import Batch, LabelledBatch, ModelContext
from zmill.models.base import Model, Neighborhood, selection_rows
from zmill.models.knn import cells, kernel, mixture
from zmill.models.spectrum_resnet import SpectrumResNet, SpectrumResNetSettings
from zmill.networks.losses import mean_crps
from zmill.networks.neighbors import VectorIndex
from zmill.sections import Section, Several

WIDTHS = (0.0003, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.04)
"""Kernel widths in 1 + z to select from on validation rows."""
ROWS = 4096
"""Most rows whose embeddings are computed at a time."""
FAR = 99.0
"""Percentile of the distances of validation rows above which a row is out of distribution."""
IDENTITY = 32
"""Bytes of the identity of a row."""


class SpectrumNeighborsSettings(Section):
    """Settings of the neighbors of spectra."""

    network: SpectrumResNetSettings = SpectrumResNetSettings.model_validate({})
    """Settings of the network whose embeddings are compared."""
    k: Several[Annotated[int, Field(ge=1, le=200)]] = (3, 5, 9, 15, 25, 41)
    """Numbers of neighbors to select from on validation rows, or a single number."""


class SpectrumNeighbors(Model):
    """Nearest training spectra in the space of standardized embeddings; each contributes a Gaussian of width `width` (1 + z)."""

    inputs = ("spectrum",)
    streams = True
    retrieves = True
    Settings = SpectrumNeighborsSettings
    quick = {"network": SpectrumResNet.quick}
    min_train = 200

    settings: SpectrumNeighborsSettings

    def __init__(self, settings: SpectrumNeighborsSettings, context: ModelContext) -> None:
        super().__init__(settings, context)
        self.embedder = SpectrumResNet(settings.network, context)
        self._last = _Last()

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        grid = self.context.grid
        self.embedder.callback = self.callback
        facts = self.embedder.fit(train, valid, device, log)
        self._set_rows(train, device)
        valid = valid.inside(grid)
        judged = selection_rows(valid)
        usable = [k for k in self.settings.k if k < len(self.z)] or [len(self.z) - 1]
        distance, number = self._index.search(self._embedded(judged.batch), usable[-1])
        truth, near = torch.as_tensor(judged.z, dtype=torch.float32), torch.from_numpy(number)
        scores = {
            (k, width): mean_crps(self._mixture(near[:, :k], kernel(grid, width, torch.device("cpu"))), truth, grid)
            for k in usable
            for width in WIDTHS
        }
        self.k, self.width = min(scores, key=lambda pair: scores[pair])
        self.far_distance = float(np.percentile(distance[:, : self.k].mean(1), FAR))
        log(
            f"k = {self.k}, kernel width {self.width:g} (1 + z), selected by the CRPS on {len(judged):,} rows; out of distribution "
            f"beyond a mean distance of {self.far_distance:.4g}"
        )
        curve = [{"k": k, "crps": min(scores[k, width] for width in WIDTHS)} for k in usable]
        return {**facts, "k": self.k, "width": self.width, "curve": curve}

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        self.embedder.refit(rows, device, log)
        self._set_rows(rows, device)

    def _set_rows(self, rows: LabelledBatch, device: torch.device) -> None:
        """Store the embeddings of the rows among which neighbors are searched."""
        rows = rows.inside(self.context.grid)
        self.to(device)
        self.center, self.scale = torch.zeros(1), torch.ones(1)
        raw = self._embedded(rows.batch)
        self.center = torch.from_numpy(raw.mean(0))
        self.scale = torch.from_numpy(raw.std(0)).clamp_min(1e-6 * float(raw.std()))
        self._index, self._last = VectorIndex.of((raw - self.center.numpy()) / self.scale.numpy()), _Last()
        self.z = torch.as_tensor(rows.z, dtype=torch.float32)
        self.weight = torch.as_tensor(rows.weight / rows.weight.mean(), dtype=torch.float32)
        chunks = row_chunks(len(rows), rows.batch.rows_in(BATCH_BYTES, ROWS))
        identities = np.concatenate([rows.batch[part].identities().astype(f"S{IDENTITY}") for part in chunks])
        self.identities = torch.from_numpy(identities.view(np.uint8).reshape(-1, IDENTITY).copy())

    def _embedded(self, batch: Any) -> NDArray[np.float32]:
        """(n, d) standardized embeddings."""
        chunks = row_chunks(len(batch), batch.rows_in(BATCH_BYTES, ROWS))
        raw = np.concatenate([self.embedder.embed(batch[part]).cpu().numpy() for part in chunks])
        return np.asarray((raw - self.center.numpy()) / self.scale.numpy(), np.float32)

    def _search(self, batch: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Distances (n, k), nearest first, and training row numbers (n, k); those of the last batch of a thread are kept."""
        last = self._last
        if last.batch() is not batch:
            last.found = self._index.search(self._embedded(batch), self.k)
            last.batch = weakref.ref(batch)
        return last.found

    @torch.inference_mode()
    def predict(self, batch: Any) -> Tensor:
        distance, number = map(torch.from_numpy, self._search(batch))
        density = self._mixture(number, kernel(self.context.grid, self.width, torch.device("cpu")))
        return density.masked_fill_(distance[:, :1].isnan(), torch.nan).to(self.device)

    def _mixture(self, number: Tensor, shapes: Tensor) -> Tensor:
        """(n, size) densities of neighbors (n, k)."""
        weight = self.weight[number]
        return mixture(*cells(self.z[number], self.context.grid), weight / weight.sum(1, keepdim=True), shapes)

    def far(self, batch: Any) -> NDArray[np.bool_]:
        chunks = [batch] if isinstance(batch, Batch) and len(batch) <= ROWS else None
        parts = chunks or [batch[part] for part in row_chunks(len(batch), ROWS)]
        return np.concatenate([~(self._search(part)[0].mean(1) <= self.far_distance) for part in parts])

    def nearest(self, batch: Any, count: int) -> Neighborhood:
        distance, number = self._index.search(self._embedded(batch), min(count, len(self.z)))
        identities = (
            self.identities.numpy()[number].reshape(-1, IDENTITY).copy().view(f"S{IDENTITY}").reshape(number.shape)
        )
        return Neighborhood(distance, self.z.numpy()[number], identities, self.far_distance)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, facts = self.embedder.state()
        tensors = {f"embedder.{name}": tensor for name, tensor in tensors.items()}
        tensors |= {name: getattr(self, name) for name in ("center", "scale", "z", "weight", "identities")}
        own = {"k": self.k, "width": self.width, "far_distance": self.far_distance}
        return {**tensors, "index": self._index.tensor()}, {**own, "embedder": facts}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        prefix = "embedder."
        of_network = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        self.embedder.restore(of_network, facts["embedder"])
        for name in ("center", "scale", "z", "weight", "identities"):
            setattr(self, name, tensors[name])
        self._index = VectorIndex.restore(tensors["index"])
        if len(self._index) != len(self.z):
            raise ValueError(f"an index of {len(self._index):,} neighbors with {len(self.z):,} redshifts")
        self.k, self.width, self.far_distance = int(facts["k"]), float(facts["width"]), float(facts["far_distance"])
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.embedder.to(device)


class _Last(threading.local):
    """The last batch of a thread, and what was found."""

    def __init__(self) -> None:
        self.batch: Callable[[], Any] = lambda: None
        self.found: Any = None


MODEL = SpectrumNeighbors
