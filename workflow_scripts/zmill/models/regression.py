"""Networks that predict one redshift, trained on its squared error; their density is that of the validation residuals."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from zmill.chunks import cache_sized_chunks
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.photometry import scaling as scalers
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.features import Columns
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.models.base import LocationScaleModel
from zmill.networks.device import sent
from zmill.networks.network import Schedule, adamw, train
from zmill.pdf.residuals import ResidualKernel
from zmill.sections import Text

ROWS = 2048
"""Rows that a CPU predicts at a time, so that the activations stay in the cache of a core."""


class PointSettings(Schedule):
    """Settings common to all networks of this kind."""

    epochs: int = Field(200, ge=1, le=100_000)
    batch: int = Field(64, ge=1, le=2**20)
    lr: float = Field(1e-4, gt=0, le=10)
    one_cycle: bool = False
    ema: float = Field(0.99, ge=0, lt=1)
    amp: bool = False
    scaling: scalers.Kind = "standard"
    """Scaling of the columns, fitted on training rows."""
    colors: bool = False
    """Adjacent colors as further inputs."""
    extra: tuple[Text, ...] = ()
    """Further inputs: `ebv` or names of the survey's columns.extra."""


class PointNetwork(LocationScaleModel):
    """Point regression; the density is a Student's t, fitted to the validation residuals, around the point."""

    min_train = 200

    settings: PointSettings

    def __init__(self, settings: PointSettings, context: ModelContext) -> None:
        super().__init__(settings, context)
        bands = len(context.of(PhotometryKind).bands)
        self.n_inputs = bands + len(settings.extra) + (bands - 1 if settings.colors else 0)
        self.network = self.build()

    @abstractmethod
    def build(self) -> nn.Module:
        """An untrained network: (1, n, self.n_inputs) -> (1, n, 1)."""

    def applied(self) -> Callable[[Tensor], Tensor]:
        """The trained network for inference, on the model's device."""
        return self.network

    def optimizer(self, parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
        """The optimizer of the training."""
        return adamw(parameters, schedule)

    def fit(
        self, train_rows: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        valid = valid.inside(self.context.grid)
        valid_z = torch.as_tensor(valid.z, dtype=torch.float32, device=device)
        self.kernel = ResidualKernel(50.0, torch.zeros(6), torch.zeros(2), torch.ones(2))
        facts = self._train(train_rows, (valid.batch, valid_z), device, log)
        self.epochs = int(facts["best_epoch"])
        valid_x, magnitude = self._inputs_of(valid.batch)
        with torch.inference_mode():
            z_hat = self.network(valid_x[None])[0, :, 0]
        self.kernel = ResidualKernel.fit(z_hat.clone(), magnitude.clone(), valid_z)
        self.to(device)
        return facts | {"residuals": {"student_nu": self.kernel.nu}}

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        self._train(rows, None, device, log)
        self.to(device)

    def _train(
        self,
        rows: LabelledBatch,
        valid: tuple[Photometry, Tensor] | None,
        device: torch.device,
        log: Callable[[str], None],
    ) -> dict[str, Any]:
        """Train from the beginning; without validation rows, for the number of epochs that was selected with them."""
        s, seed, rows = self.settings, self.context.seed, rows.inside(self.context.grid)
        self.columns = Columns.fit(rows.batch, s.extra, s.colors)
        self.scaler = scalers.fit(s.scaling, self.columns(rows.batch))
        torch.manual_seed(seed)
        self.network = self.build()
        self.to(device)
        x = self._inputs_of(rows.batch)[0].contiguous()
        z = torch.as_tensor(rows.z, dtype=torch.float32, device=device)
        weight = torch.as_tensor(rows.weight / rows.weight.mean(), dtype=torch.float32, device=device)

        def loss(network: nn.Module, chosen: Tensor, _: torch.Generator) -> Tensor:
            error = network(x[chosen])[..., 0].float() - z[chosen]
            return (error.square() * weight[chosen]).mean(-1).sum()

        if valid is None:
            phase, until = "network, refitted", self.epochs
            return train(
                self.network, len(rows), 1, loss, None, s, seed, log, self.optimizer, self.callback, phase, until=until
            )
        valid_x, _ = self._inputs_of(valid[0])

        def score(network: nn.Module) -> float:
            return float((network(valid_x[None])[0, :, 0] - valid[1]).square().mean())

        return train(self.network, len(rows), 1, loss, score, s, seed, log, self.optimizer, self.callback)

    @torch.inference_mode()
    def loc_scale(self, batch: Photometry) -> tuple[Tensor, Tensor]:
        x, magnitude = self._inputs_of(batch)
        pieces = (x[rows].contiguous() for rows in cache_sized_chunks(len(x), ROWS, self.device))
        z_hat = torch.cat([self._applied(piece[None])[0, :, 0] for piece in pieces])
        return z_hat, self.kernel.log_scale(z_hat, magnitude)

    @torch.inference_mode()
    def density_at(self, loc: Tensor, log_scale: Tensor) -> Tensor:
        return self.kernel.density(loc, log_scale, self.context.grid)

    def _inputs_of(self, batch: Photometry) -> tuple[Tensor, Tensor]:
        """Scaled inputs (n, inputs) and reference magnitude (n,)."""
        x, magnitude = self.columns.scaled(batch, self.scaler, self.context.of(PhotometryKind).reference)
        return sent(x, self.device), sent(magnitude, self.device)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        tensors |= {"fill": self.columns.fill, "offset": self.scaler.offset, "scale": self.scaler.scale}
        tensors |= {
            "kernel_coefficients": self.kernel.coefficients,
            "kernel_center": self.kernel.center,
            "kernel_spread": self.kernel.spread,
        }
        return tensors, {"student_nu": self.kernel.nu}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.columns = Columns(self.settings.extra, self.settings.colors, tensors["fill"])
        self.scaler = scalers.Scaler(tensors["offset"], tensors["scale"])
        prefix = "network."
        self.network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        names = ("kernel_coefficients", "kernel_center", "kernel_spread")
        self.kernel = ResidualKernel(float(facts["student_nu"]), *(tensors[name] for name in names))
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.network.to(device).eval()
        self.kernel = self.kernel.to(device)
        self._applied = self.applied()
