"""Gradient boosting with a density: each coefficient of a cosine series is a boosted regression.

FlexCode (Izbicki & Lee 2017) with LightGBM as the regression, as FlexZBoost is with XGBoost.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from zmill.inputs.base import LabelledBatch
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.tree_inputs import TreeInputs
from zmill.models import base
from zmill.models.base import Model
from zmill.pdf.grid import Grid
from zmill.pdf.values import density_at
from zmill.sections import Text

if TYPE_CHECKING:
    import lightgbm

BUMPS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
"""Bump thresholds, as fractions of the peak, to select from: a truncated series does not vanish between its peaks."""
SHARPEN = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
"""Powers of the density to select from: a truncated series is wider than the density that it approximates."""
ROWS = 4096
"""Validation rows whose densities are in memory at a time."""


class GBDTSettings(base.Settings):
    """Settings of the boosted trees."""

    bases: int = Field(40, ge=2, le=1000)
    """Terms of the cosine series in ln(1 + z)."""
    rounds: int = Field(300, ge=1, le=100_000)
    """Largest number of trees of one coefficient."""
    patience: int = Field(30, ge=1, le=100_000)
    """Number of trees without a better validation error after which a coefficient stops."""
    lr: float = Field(0.05, gt=0, le=10)
    leaves: int = Field(31, ge=2, le=2**17)
    """Leaves of a tree."""
    leaf_rows: int = Field(10, ge=1, le=2**30)
    """Fewest training rows in a leaf."""
    features: float = Field(0.5, gt=0, le=1)
    """Fraction of the inputs used by a tree."""
    rows: float = Field(0.8, gt=0, le=1)
    """Fraction of the rows that a tree is grown on."""
    extra: tuple[Text, ...] = ()
    """Further inputs: `ebv` or names of the survey's columns.extra."""


class BoostedDensity(Model):
    """p(z) = (sum_k c_k(photometry) phi_k(z)), cut at a bump threshold, sharpened and normalized."""

    Settings = GBDTSettings
    quick = {"bases": 12, "rounds": 40, "lr": 0.1, "leaves": 8}
    min_train = 200

    settings: GBDTSettings

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        valid = valid.inside(self.context.grid)
        self._boost(train, valid, [self.settings.rounds] * (self.settings.bases - 1))
        self.bump, self.sharpen = 0.0, 1.0
        self._prepare()
        curve = self._curve(self._coefficients(valid.batch), torch.as_tensor(valid.z, dtype=torch.float32))
        best = min(curve, key=lambda point: point["cde_loss"])
        self.bump, self.sharpen = best["bump"], best["sharpen"]
        trees = sum(booster.num_trees() for booster in self.boosters)
        log(f"{trees:,} trees; densities cut at {self.bump:g} of their peak, to the power {self.sharpen:g}")
        return {"trees": trees, "bump": self.bump, "sharpen": self.sharpen, "curve": curve}

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        self._boost(rows, None, [booster.num_trees() for booster in self.boosters])

    def _boost(self, rows: LabelledBatch, valid: LabelledBatch | None, rounds: list[int]) -> None:
        """Grow the trees of every coefficient: at most `rounds` with early stopping, or exactly `rounds` without validation rows."""
        import lightgbm

        s, grid = self.settings, self.context.grid
        rows = rows.inside(grid)
        self.features = TreeInputs.fit(rows.batch, s.extra)
        x, target = self.features(rows.batch).numpy(), basis(grid, rows.z, s.bases)
        parameters = {
            "objective": "l2",
            "learning_rate": s.lr,
            "num_leaves": s.leaves,
            "min_data_in_leaf": s.leaf_rows,
            "feature_fraction": s.features,
            "bagging_fraction": s.rows,
            "bagging_freq": 1,
            "seed": self.context.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": torch.get_num_threads(),
            "verbose": -1,
        }
        data = lightgbm.Dataset(x, target[:, 0], weight=rows.weight, params=parameters, free_raw_data=False)
        valid_sets, valid_target = [], np.zeros((0, s.bases))
        if valid is not None:
            valid_target = basis(grid, valid.z, s.bases)
            valid_x = self.features(valid.batch).numpy()
            valid_sets = [lightgbm.Dataset(valid_x, valid_target[:, 0], reference=data, free_raw_data=False)]
        self.boosters: list[lightgbm.Booster] = []
        for number, most in enumerate(rounds, 1):
            data.set_label(target[:, number])
            for valid_set in valid_sets:
                valid_set.set_label(valid_target[:, number])
            stops: list[Callable[..., Any]] = [lightgbm.early_stopping(s.patience, verbose=False) for _ in valid_sets]
            booster = lightgbm.train(parameters, data, most, valid_sets=valid_sets, callbacks=stops)
            kept = booster.best_iteration if valid_sets else most
            self.boosters.append(_reloaded(booster.model_to_string(num_iteration=kept)))

    def _curve(self, coefficients: Tensor, z: Tensor) -> list[dict[str, float]]:
        """CDE loss of validation rows for every bump threshold and sharpening (Izbicki & Lee 2017, eq. 7)."""
        grid, curve = self.context.grid, []
        for bump in BUMPS:
            for power in SHARPEN:
                total = 0.0
                for some, at in zip(coefficients.split(ROWS), z.split(ROWS), strict=True):
                    density = self._shaped(some, bump, power)
                    total += float((grid.integral(density.square()) - 2 * density_at(density, grid, at)).sum())
                curve.append({"bump": bump, "sharpen": power, "cde_loss": total / len(z)})
        return curve

    def predict(self, batch: Photometry) -> Tensor:
        return self._shaped(self._coefficients(batch), self.bump, self.sharpen).to(self.device)

    def _coefficients(self, batch: Photometry) -> Tensor:
        """(n, bases) coefficients of the series; the first is 1."""
        x = self.features(batch).numpy()
        out = np.ones((len(x), len(self.boosters) + 1), np.float32)
        for number, booster in enumerate(self.boosters, 1):
            out[:, number] = booster.predict(x, num_threads=torch.get_num_threads())
        return torch.from_numpy(out)

    def _shaped(self, coefficients: Tensor, bump: float, power: float) -> Tensor:
        raw = (coefficients @ self._basis).clamp_min_(0)
        peak = raw.amax(1, keepdim=True).clamp_min(1e-12)
        shape = (raw / peak - bump).clamp_min_(0).pow_(power)
        return self.context.grid.normalize(shape * self._jacobian)

    def _prepare(self) -> None:
        grid = self.context.grid
        self._basis = torch.from_numpy(basis(grid, grid.z, self.settings.bases).T.astype(np.float32)).contiguous()
        self._jacobian = 1 / (1 + grid.tensor())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        texts = [zlib.compress(booster.model_to_string().encode()) for booster in self.boosters]
        return {
            "trees": torch.from_numpy(np.frombuffer(b"".join(texts), np.uint8).copy()),
            "softening": self.features.softening,
            "center": self.features.center,
        }, {"sizes": [len(text) for text in texts], "bump": self.bump, "sharpen": self.sharpen}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.features = TreeInputs(self.settings.extra, tensors["softening"], tensors["center"])
        ends = np.cumsum(facts["sizes"])
        texts = tensors["trees"].numpy().tobytes()
        parts = [texts[end - size : end] for end, size in zip(ends, facts["sizes"], strict=True)]
        self.boosters = [_reloaded(zlib.decompress(part).decode()) for part in parts]
        self.bump, self.sharpen = float(facts["bump"]), float(facts["sharpen"])
        self._prepare()


def basis(grid: Grid, z: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    """(n, number) cosines 1, sqrt(2) cos(pi k u), orthonormal in u: ln(1 + z) from 0 to 1 over the grid."""
    low, high = np.log1p(grid.z_min), np.log1p(grid.z_max)
    u = (np.log1p(z) - low) / (high - low)
    cosines = np.sqrt(2) * np.cos(np.pi * np.arange(number) * u[:, None])
    cosines[:, 0] = 1.0
    return cosines


def _reloaded(text: str) -> lightgbm.Booster:
    """A booster from LightGBM's text format, so that fitted and loaded models are identical."""
    import lightgbm

    return lightgbm.Booster(model_str=text)


MODEL = BoostedDensity
