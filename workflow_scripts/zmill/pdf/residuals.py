"""The density of a model that predicts one redshift, fitted to the residuals of validation rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zmill.pdf.grid import Grid

TAILS = (2.0, 3.0, 5.0, 10.0, 50.0)
"""Degrees of freedom of Student's t that are tried; 50 is almost a Gaussian."""
ENOUGH = 100
"""With fewer validation rows, the scale is the same for all rows."""


@dataclass(frozen=True)
class ResidualKernel:
    """Student's t around the prediction, with a scale that depends on the prediction and on the reference magnitude.

    (z - z_hat) / (1 + z_hat) ~ sigma t_nu, with ln sigma a quadratic form of z_hat and the magnitude, fitted by maximum
    likelihood on validation rows.

    nu : degrees of freedom; coefficients : (6,); center, spread : (2,) standardization of (z_hat, magnitude).
    """

    nu: float
    coefficients: Tensor
    center: Tensor
    spread: Tensor

    @classmethod
    def fit(cls, z_hat: Tensor, magnitude: Tensor, z: Tensor) -> ResidualKernel:
        """Fit the kernel to predictions, reference magnitudes and redshifts (n,) of validation rows."""
        z_hat, magnitude, z = z_hat.double().cpu(), magnitude.double().cpu(), z.double().cpu()
        predictors = torch.stack([z_hat, magnitude], 1)
        center = predictors.mean(0)
        spread = predictors.std(0, unbiased=False)
        spread = torch.where(spread > 1e-9, spread, torch.ones_like(spread))
        terms = _terms(z_hat, magnitude, center, spread)
        free = torch.zeros(6, dtype=torch.float64)
        free[: 6 if len(z) >= ENOUGH else 1] = 1.0
        residual = (z - z_hat) / (1 + z_hat)
        best, found = math.inf, None
        for nu in TAILS:
            value, coefficients = _maximum_likelihood(terms * free, residual, nu)
            if value < best:
                best, found = value, cls(nu, coefficients.float(), center.float(), spread.float())
        assert found is not None
        return found

    def __call__(self, z_hat: Tensor, magnitude: Tensor, grid: Grid) -> Tensor:
        """(n, size) normalized densities."""
        return self.density(z_hat, self.log_scale(z_hat, magnitude), grid)

    def log_scale(self, z_hat: Tensor, magnitude: Tensor) -> Tensor:
        """(n,) natural logarithm of the scale in redshift, sigma (1 + z_hat)."""
        log_sigma = _terms(z_hat, magnitude, self.center, self.spread) @ self.coefficients
        return log_sigma + (1 + z_hat).clamp_min(0.01).log()

    def density(self, z_hat: Tensor, log_scale: Tensor, grid: Grid) -> Tensor:
        """(n, size) normalized densities of given scales."""
        t = (grid.tensor(z_hat.device) - z_hat[:, None]) / log_scale.exp()[:, None]
        return grid.normalize(torch.exp(-0.5 * (self.nu + 1) * torch.log1p(t.square_().div_(self.nu))))

    def to(self, device: torch.device) -> ResidualKernel:
        """The same kernel on a device."""
        return ResidualKernel(self.nu, *(t.to(device) for t in (self.coefficients, self.center, self.spread)))


def _terms(z_hat: Tensor, magnitude: Tensor, center: Tensor, spread: Tensor) -> Tensor:
    """(n, 6) terms of the quadratic form; predictors are clipped to ±2.5 standard deviations."""
    a, b = ((value - c) / s for value, c, s in zip((z_hat, magnitude), center, spread, strict=True))
    a, b = a.clamp(-2.5, 2.5), b.clamp(-2.5, 2.5)
    return torch.stack([torch.ones_like(a), a, b, a * a, a * b, b * b], 1)


def _maximum_likelihood(terms: Tensor, residual: Tensor, nu: float) -> tuple[float, Tensor]:
    """The smallest mean negative log-likelihood, and its coefficients of ln sigma."""
    coefficients = torch.zeros(6, dtype=torch.float64)
    coefficients[0] = float(residual.abs().median().clamp_min(1e-4).log())
    coefficients.requires_grad_(True)
    constant = math.lgamma(nu / 2) - math.lgamma((nu + 1) / 2) + 0.5 * math.log(nu * math.pi)
    optimizer = torch.optim.LBFGS([coefficients], max_iter=100, line_search_fn="strong_wolfe")

    def negative() -> Tensor:
        log_sigma = (terms @ coefficients).clamp(-9, 3)
        t2 = (residual / log_sigma.exp()).square()
        likelihood = constant + log_sigma + 0.5 * (nu + 1) * torch.log1p(t2 / nu)
        return likelihood.mean() + 1e-3 * coefficients[1:].square().sum()

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = negative()
        value.backward()
        return value

    optimizer.step(closure)
    with torch.no_grad():
        return float(negative()), coefficients.detach()
