"""Spectrum and photometry of the same row: the densities of a network for each, multiplied.

If the two measurements are independent at a given redshift, p(z | spectrum, photometry) ∝ p(z | spectrum) p(z | photometry) / n(z), with the
n(z) of the training rows. They are not quite, and a network may be too sure of itself: each of the three factors has an exponent, fitted
on validation rows (a logarithmic opinion pool, Genest & Zidek 1986, Stat. Sci. 1, 114).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor

from zmill.inputs.base import Joint, LabelledBatch, ModelContext
from zmill.models.base import Model, selection_rows
from zmill.models.resmlp import ResidualEnsemble, ResMLPSettings
from zmill.models.spectrum_resnet import SpectrumResNet, SpectrumResNetSettings
from zmill.pdf.histogram import n_of_z
from zmill.sections import Section, Text

PHOTOMETRY, SPECTRUM = "photometry", "spectrum"
PRIOR_ROWS = 1.0
"""Strength of the Gaussian prior that shrinks the exponents towards 1."""
LARGEST = 10.0
"""Upper limit of an exponent."""
FLOOR = -80.0
"""Lowest logarithm of a density relative to its peak."""


class SpectrumPhotometrySettings(Section):
    """Settings of the two networks."""

    spectrum: SpectrumResNetSettings = SpectrumResNetSettings.model_validate({})
    """Settings of the network over the spectrum: the keys of `spectrum_resnet`."""
    photometry: ResMLPSettings = ResMLPSettings.model_validate({})
    """Settings of the networks over the photometry: the keys of `resmlp`."""
    extra: tuple[Text, ...] = ()
    """Inputs in addition to the photometry: `ebv` or names of the survey's columns.extra."""

    @model_validator(mode="after")
    def _extra_once(self) -> SpectrumPhotometrySettings:
        if self.photometry.extra:
            raise ValueError("give `extra` next to `photometry`, not in it")
        return self


class SpectrumPhotometry(Model):
    """Product of the densities of `spectrum_resnet` and `resmlp`. A row that lacks one of the two has the density of the other."""

    inputs = (PHOTOMETRY, SPECTRUM)
    Settings = SpectrumPhotometrySettings
    quick = {"spectrum": SpectrumResNet.quick, "photometry": ResidualEnsemble.quick}
    min_train = 200

    settings: SpectrumPhotometrySettings

    def __init__(self, settings: SpectrumPhotometrySettings, context: ModelContext) -> None:
        super().__init__(settings, context)
        own = {kind.name: replace(context, inputs=(kind,)) for kind in context.inputs}
        photometry = settings.photometry.model_copy(update={"extra": settings.extra})
        self.networks: dict[str, Model] = {
            PHOTOMETRY: ResidualEnsemble(photometry, own[PHOTOMETRY]),
            SPECTRUM: SpectrumResNet(settings.spectrum, own[SPECTRUM]),
        }
        self.exponents = {PHOTOMETRY: 1.0, SPECTRUM: 1.0, "n_of_z": 1.0}
        self.log_prior = torch.zeros(context.grid.size)

    def fit(
        self, train: LabelledBatch, valid: LabelledBatch, device: torch.device, log: Callable[[str], None]
    ) -> dict[str, Any]:
        facts = {}
        for name, network in self.networks.items():
            network.callback = self.callback
            facts[name] = network.fit(_of(train, name), _of(valid, name), device, log)
        self._set_prior(train)
        self.to(device)
        valid = valid.inside(self.context.grid)
        self._fit_exponents(selection_rows(valid))
        log("exponents of the densities: " + ", ".join(f"{name} {value:.3g}" for name, value in self.exponents.items()))
        return {**facts, "exponents": self.exponents}

    def refit(self, rows: LabelledBatch, device: torch.device, log: Callable[[str], None]) -> None:
        for name, network in self.networks.items():
            network.refit(_of(rows, name), device, log)
        self._set_prior(rows)
        self.to(device)

    def _set_prior(self, rows: LabelledBatch) -> None:
        density = n_of_z(rows.z, rows.weight, self.context.grid)
        # A redshift that no training row has is as rare as one row in ten times as many.
        self.log_prior = density.clamp_min(0.1 * float(density.max()) / max(len(rows), 1)).log()

    def _fit_exponents(self, rows: LabelledBatch) -> None:
        """Maximum likelihood of the true redshifts, among the points of the grid (convex), on rows that have both inputs."""
        from scipy.optimize import minimize  # only here: jobs that predict do without

        grid, both = self.context.grid, np.logical_and.reduce([*self._known(rows.batch).values()])
        rows = rows.rows(both)
        if not len(rows):
            return
        parts = [*(part.double().cpu() for part in self._logs(rows.batch).values())]
        parts.append(-self.log_prior.double().cpu().expand_as(parts[0]))
        logs = torch.stack(parts, 2).numpy()
        point = np.clip(np.rint((rows.z - grid.z_min) / grid.step), 0, grid.size - 1).astype(np.int64)
        weight = rows.weight / rows.weight.mean()
        truth = logs[np.arange(len(rows)), point]

        def negative(exponents: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            total = logs @ exponents
            top = total.max(1, keepdims=True)
            probability = np.exp(total - top)
            norm = probability.sum(1)
            mean = np.einsum("ng,ngk->nk", probability, logs) / norm[:, None]
            off = exponents - 1
            likelihood = truth @ exponents - top[:, 0] - np.log(norm)
            gradient = PRIOR_ROWS * off - weight @ (truth - mean)
            return float(0.5 * PRIOR_ROWS * off @ off - weight @ likelihood), gradient

        found = minimize(negative, np.ones(3), jac=True, method="L-BFGS-B", bounds=[(0, LARGEST)] * 3).x
        self.exponents = dict(zip((*self.networks, "n_of_z"), (round(float(value), 6) for value in found), strict=True))

    def _known(self, batch: Joint) -> dict[str, NDArray[np.bool_]]:
        """Name of the input -> (n,) whether rows have any information of it."""
        parts = {name: batch.kinds[name] for name in self.networks}
        return {name: part.information() != part.classes for name, part in parts.items()}

    def _logs(self, batch: Joint) -> dict[str, Tensor]:
        """Name of the input -> (n, grid.size) logarithms of the densities of its network, 0 at their peaks."""
        found = {}
        for name, network in self.networks.items():
            logs = network.log_density(batch.kinds[name]).float()
            found[name] = (logs - logs.amax(1, keepdim=True)).clamp_min(FLOOR)
        return found

    @torch.inference_mode()
    def log_density(self, batch: Joint) -> Tensor:
        known, logs = self._known(batch), self._logs(batch)
        both = torch.from_numpy(np.logical_and.reduce([*known.values()])).to(self.device)[:, None]
        total = (
            sum(self.exponents[name] * part for name, part in logs.items()) - self.exponents["n_of_z"] * self.log_prior
        )
        for name, part in logs.items():
            alone = torch.from_numpy(known[name]).to(self.device)[:, None] & ~both
            total = torch.where(alone, part, total)
        return total

    @torch.inference_mode()
    def predict(self, batch: Joint) -> Tensor:
        logs = self.log_density(batch)
        return self.context.grid.normalize((logs - logs.amax(1, keepdim=True)).exp())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, facts = {"log_prior": self.log_prior}, dict[str, Any]()
        for name, network in self.networks.items():
            own, facts[name] = network.state()
            tensors |= {f"{name}.{key}": value for key, value in own.items()}
        return tensors, {**facts, "exponents": self.exponents}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        for name, network in self.networks.items():
            prefix = f"{name}."
            own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            network.restore(own, facts[name])
        self.log_prior = tensors["log_prior"]
        self.exponents = {name: float(facts["exponents"][name]) for name in self.exponents}
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.log_prior = self.log_prior.to(device)
        for network in self.networks.values():
            network.to(device)


def _of(rows: LabelledBatch, name: str) -> LabelledBatch:
    """The rows with the batch of one input, without those that have nothing of it."""
    batch = rows.batch.kinds[name]
    known = replace(rows, batch=batch)
    return known.rows(batch.information() != batch.classes)


MODEL = SpectrumPhotometry
