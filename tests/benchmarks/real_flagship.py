"""The flagship network trained on simulated and real spectra, for `real_spectra.py --flagship`.

Simulated spectra have the wavelengths, masks and errors of real training spectra. Galaxies are the SEDs that the templates are made of, redshifted and
absorbed; quasars, where there are some in the sample, are drawn from the coefficients that 20,345 real quasars have on four eigenspectra (desisim),
with a random Lyman forest. Each is distorted by up to `DISTORTION`, as by a wrong flux calibration.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.spectrum.batch import Spectra
from zmill.inputs.spectrum.continuum import level
from zmill.inputs.spectrum.kind import SpectrumKind
from zmill.models.spectrum_resnet import SpectrumResNet, SpectrumResNetSettings
from zmill.networks.template_fit import Axis, polynomials
from zmill.restframe import forest, pca

Array = NDArray[np.float64]

QUASARS = "sed_library/desisim_qso_pca_v2.0-lite.fits"
DISTORTION = 0.1
"""Standard deviation of the coefficients of four polynomials that a simulated spectrum is multiplied by."""
CLUMPS = 1.0
"""Standard deviation of the logarithm of the optical depth of the forest in a pixel."""
FARTHEST_GALAXY = 1.7
SETTINGS = {"width": 16, "blocks": 3, "batch": 64, "lr": 0.005, "ema": 0.98, "epochs": 7}
REPEATED = 3


class Simulator:
    """Spectra of SEDs and of quasars on the wavelengths of a survey."""

    def __init__(self, context: ModelContext, seds: Path, data: Path | None) -> None:
        """data : folder with the eigenspectra of quasars; None where there are none."""
        wavelengths = context.of(SpectrumKind).grid
        self.context = context
        self.axis = Axis.of(wavelengths.wavelength, wavelengths.log_step, context.grid)
        self.observed = wavelengths.wavelength
        resolution = 1 / (2 * float(np.median(np.diff(np.log(self.observed)))))
        rest = self.axis.rest
        self.galaxies = pca.on_cells([seds], rest, resolution).astype(np.float32)
        self.quasars = None
        if data is not None:
            from astropy.io import fits

            with fits.open(data / QUASARS, memmap=False) as file:
                wave, eigen = (np.asarray(file[name].data, np.float64) for name in ("SDSS_EIGEN_WAVE", "SDSS_EIGEN"))
                coefficients = [np.array(file[name].data.tolist()) for name in ("BOSS_PCA", "SDSS_PCA")]
            self.quasars = np.array([np.interp(rest.centers, wave, row) for row in eigen]), np.vstack(coefficients)

    def spectra(self, known: LabelledBatch, number: int, rng: np.random.Generator) -> LabelledBatch:
        """Simulated spectra with the errors of known ones, and half with redshifts near those, half with any redshift.

        Where there are quasars, spectra beyond the redshifts of galaxies and a third of the others are quasars.
        """
        grid, axis = self.context.grid, self.axis
        like = rng.integers(0, len(known), number)
        near = (1 + known.z[like]) * np.exp(rng.normal(0, 0.1, number)) - 1
        z = np.where(rng.random(number) < 0.5, near, rng.uniform(grid.z_min, grid.z_max, number))
        z = np.where((z > grid.z_min) & (z < grid.z_max), z, known.z[like])
        shift = np.clip(np.rint(np.log((1 + z) / (1 + grid.z_min)) / axis.step).astype(int), 0, axis.shifts - 1)
        z = axis.z[shift].clip(grid.z_min, grid.z_max)
        quasar = (
            np.zeros(number, bool) if self.quasars is None else (z > FARTHEST_GALAXY) | (rng.random(number) < 1 / 3)
        )
        real, weights = known.batch.flux[like], known.batch.ivar[like]
        own = level(real, weights)[:, None]
        ivar = weights * own**2
        terms = polynomials(axis.size, 4).numpy()[:, axis.places]
        flux = np.empty(ivar.shape)
        for row in range(number):
            seen = axis.shifts - 1 - shift[row] + axis.places
            if quasar[row]:
                assert self.quasars is not None
                eigen, coefficients = self.quasars
                one = np.maximum(coefficients[rng.integers(len(coefficients))] @ eigen[:, seen], 0)
            else:
                one = self.galaxies[rng.integers(len(self.galaxies)), seen].astype(np.float64)
            one = one * self._transmitted(z[row], rng) * (1 + DISTORTION * rng.normal(size=4) @ terms)
            good = ivar[row] > 0
            typical = float(np.median(np.abs(one[good]))) if good.any() else 1.0
            flux[row] = one / max(typical, 1e-30)
        noise = rng.normal(size=flux.shape) / np.sqrt(np.where(ivar > 0, ivar, np.inf))
        batch = Spectra.of(
            ((flux + noise) * own).astype(np.float32), weights.astype(np.float32), self.context.of(SpectrumKind).grid
        )
        return LabelledBatch(batch, z, np.ones(number))

    def _transmitted(self, z: float, rng: np.random.Generator) -> Array:
        """(pixels,) of the light of an object, in a forest of its own."""
        found = np.ones(len(self.observed))
        for wavelength, through in forest.transmissions("Calura12", self.observed):
            found = np.where(self.observed < wavelength * (1 + z), through, found)
        clumps = np.exp(rng.normal(0, CLUMPS, len(found)) - CLUMPS**2 / 2)
        return np.asarray(found**clumps)


def trained(simulator: Simulator, known: LabelledBatch, simulated: int) -> SpectrumResNet:
    """The network, trained on simulated spectra and on `REPEATED` copies of the known ones, of which a fifth selects the epoch."""
    rng = np.random.default_rng(1)
    selects = rng.permutation(len(known)) % 5 == 0
    own = known.rows(~selects)
    parts = [simulator.spectra(own, simulated, rng), *[own] * REPEATED]
    model = SpectrumResNet(SpectrumResNetSettings.model_validate(SETTINGS), simulator.context)
    model.fit(LabelledBatch.join(parts), known.rows(selects), torch.device("cpu"), print)
    return model
