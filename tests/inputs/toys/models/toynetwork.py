"""A toy network on spectra that takes training rows by number, so that they can stay on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from zmill.inputs.toyspectrum import ToyBatch

from zmill.inputs.base import LabelledBatch
from zmill.models.base import Model
from zmill.networks.losses import density_loss, mean_cde_loss
from zmill.networks.network import FullyConnected, Schedule, load_tensors, tensors_of, train


class ToyNetwork(Model):
    """One hidden layer and a softmax over the grid."""

    inputs = ("toyspectrum",)
    streams = True
    Settings = Schedule

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        grid, judged = self.context.grid, valid.inside(self.context.grid)
        judged = judged.rows(slice(0, 100)).in_memory()
        spectra, z = _flux(judged.batch), torch.as_tensor(judged.z, dtype=torch.float32)

        def score(network: nn.Module) -> float:
            return mean_cde_loss(grid.normalize(network(spectra[None])[0].softmax(-1)), z, grid)

        return self._train(train.inside(grid), score, log)

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        self._train(rows.inside(self.context.grid), None, log)

    def _train(
        self, rows: LabelledBatch, score: Callable[[nn.Module], float] | None, log: Callable[[str], None]
    ) -> dict[str, Any]:
        grid = self.context.grid
        torch.manual_seed(self.context.seed)
        self.network = FullyConnected(1, rows.batch[:1].flux.shape[1], (16,), grid.size)
        z = torch.as_tensor(rows.z, dtype=torch.float32)

        def loss(network: nn.Module, chosen: Tensor, generator: torch.Generator) -> Tensor:
            spectra = _flux(rows.batch[chosen.flatten().numpy()])
            return density_loss(network(spectra[None]), z[chosen], grid, 0.01, 1.0).mean(-1).sum()

        return train(
            self.network, len(rows), 1, loss, score, self.settings, self.context.seed, log, callback=self.callback
        )

    @torch.inference_mode()
    def predict(self, batch: ToyBatch) -> Tensor:
        return self.context.grid.normalize(self.network(_flux(batch)[None])[0].softmax(-1))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return tensors_of(network=self.network), {"pixels": self.network.layers[0].weight.shape[1]}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.network = FullyConnected(1, facts["pixels"], (16,), self.context.grid.size)
        load_tensors(tensors, network=self.network)


def _flux(batch: ToyBatch) -> Tensor:
    return torch.nan_to_num(torch.from_numpy(batch.flux.copy()))


MODEL = ToyNetwork
