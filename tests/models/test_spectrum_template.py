"""The template fit to spectra: least squares at every redshift, densities that keep narrow peaks, templates of SEDs and of files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from models import contract
from models.toy_spectra import CONTEXT, GRID, WAVELENGTHS, labelled
from zmill.config import ConfigError
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.spectrum.batch import Spectra
from zmill.inputs.spectrum.grid import WavelengthGrid
from zmill.inputs.spectrum.kind import SpectrumKind
from zmill.models import pca
from zmill.models.spectrum_template import (
    POLYNOMIAL,
    WIDTH,
    Axis,
    Basis,
    SpectrumTemplate,
    SpectrumTemplateSettings,
    polynomials,
    to_grid,
)
from zmill.pdf.grid import Grid

QUICK = SpectrumTemplate.quick
FINE = WavelengthGrid("log10", start=3.6, step=1e-3, pixels=300)
FINE_GRID = Grid(0.0, 0.5, 501)


@pytest.fixture(scope="module")
def model() -> SpectrumTemplate:
    found, _ = contract.fitted("spectrum_template", QUICK, labelled(200, 1), labelled(100, 2))
    assert isinstance(found, SpectrumTemplate)
    return found


def test_it_finds_redshifts() -> None:
    contract.is_accurate("spectrum_template", QUICK, 0.006)


def test_it_is_saved_and_repeatable(tmp_path: Path) -> None:
    contract.is_saved_and_repeatable("spectrum_template", QUICK, tmp_path)


def test_a_refit_calibrates() -> None:
    contract.refit_learns("spectrum_template", QUICK)


@given(st.integers(0, 1000), st.integers(1, 4), st.integers(0, 3))
@settings(deadline=None, max_examples=15)
def test_the_likelihood_is_that_of_least_squares_with_a_prior(seed: int, count: int, terms: int) -> None:
    """At every redshift, against the Gaussian integral with explicit matrices of shifted templates in 64 bits."""
    rng = np.random.default_rng(seed)
    axis = Axis.of(WavelengthGrid("log10", start=3.6, step=3e-3, pixels=40), Grid(0.0, 0.3, 61))
    templates = rng.uniform(0.5, 1.5, (count, axis.rest.size))
    flux, ivar = (
        rng.normal(1, 0.5, (2, axis.size)),
        rng.uniform(0, 4, (2, axis.size)) * (rng.random((2, axis.size)) < 0.8),
    )
    nuisance = polynomials(axis.size, terms)
    basis = Basis(torch.as_tensor(templates).float(), (-1.0, np.inf), axis)
    given_ = (torch.as_tensor(values).float() for values in (flux, ivar))
    found = basis.likelihood(*given_, nuisance).numpy()
    typical = np.sqrt((templates**2).sum(0))
    for shift in range(axis.shifts):
        first = (
            axis.shifts - 1 - shift
        )  # the larger the redshift, the shorter the rest-frame wavelength of the first pixel
        seen = slice(first, first + axis.size)
        prior = np.append(np.full(count, (typical[seen].mean() / WIDTH) ** 2), np.full(terms, POLYNOMIAL**-2))
        design = np.vstack([templates[:, seen], nuisance.double().numpy()])
        for row in range(2):
            matrix = (design * ivar[row]) @ design.T + np.diag(prior)
            right = design @ (ivar[row] * flux[row])
            expected = right @ np.linalg.solve(matrix, right) / 2 - np.linalg.slogdet(matrix)[1] / 2
            expected += np.log(prior[:count]).sum() / 2
            assert found[row, shift] == pytest.approx(expected, rel=2e-4, abs=0.02)


@given(st.floats(0.01, 0.49), st.integers(2, 400))
@settings(deadline=None, max_examples=30)
def test_no_peak_is_lost_between_grid_points(z: float, points: int) -> None:
    """The probability of one redshift of the axis is on the two grid points next to it; a flat density stays flat."""
    grid = Grid(0.0, 0.5, points)
    axis = Axis.of(FINE, grid)
    gather, share = to_grid(axis.z, grid)
    probability = torch.zeros(1, axis.shifts)
    number = int(np.abs(axis.z - z).argmin())
    probability[0, number] = 1.0
    density = torch.linalg.vecdot(probability[:, gather], share)
    density = grid.normalize(density)[0].double().numpy()
    near = np.flatnonzero(density)
    assert 1 <= len(near) <= 2 and np.abs(grid.z[near] - axis.z[number]).max() <= grid.step
    assert abs(grid.z @ density / density.sum() - axis.z[number]) < 0.1 * grid.step or {0, points - 1} & set(near)
    flat = torch.as_tensor(1 + axis.z)[None].float()
    torch.testing.assert_close(
        grid.normalize(torch.linalg.vecdot(flat[:, gather], share)), torch.full((1, points), 2.0), rtol=1e-3, atol=1e-3
    )


def test_redshifts_of_the_axis_are_as_close_as_the_grid_points() -> None:
    for wavelengths in (FINE, WavelengthGrid("linear", start=4000, step=20, pixels=100), WAVELENGTHS):
        axis = Axis.of(wavelengths, FINE_GRID)
        assert np.diff(axis.z).max() <= FINE_GRID.step * 1.0001
        assert axis.z[0] == pytest.approx(FINE_GRID.z_min) and axis.z[-2] < FINE_GRID.z_max <= axis.z[-1] + 1e-6
        place = axis.start + axis.step * axis.places
        pixel = np.median(np.diff(np.log(wavelengths.wavelength)))
        assert np.abs(place - np.log(wavelengths.wavelength)).max() <= pixel / 4 * 1.001
        low, high = axis.rest.range
        assert low <= wavelengths.wavelength[0] / (1 + axis.z[-1])
        assert high >= wavelengths.wavelength[-1] / (1 + FINE_GRID.z_min) * (1 - pixel)


def test_spectra_without_a_good_pixel_have_the_prior(model: SpectrumTemplate) -> None:
    batch = labelled(4, 3).batch
    nothing = batch.with_pixels(np.full_like(batch.flux, np.nan), np.zeros_like(batch.ivar))
    density = model.predict(nothing)
    torch.testing.assert_close(density, model.prior.expand(4, -1), rtol=0.05, atol=0.02)


def test_masked_pixels_and_the_unit_of_flux_do_not_count(model: SpectrumTemplate) -> None:
    batch = labelled(5, 3).batch
    strange = batch.with_pixels(np.where(batch.ivar > 0, batch.flux, np.float32(99)), batch.ivar)
    assert torch.equal(model.predict(batch), model.predict(strange))
    scaled = batch.with_pixels(batch.flux * np.float32(1024), batch.ivar / np.float32(1024) ** 2)
    torch.testing.assert_close(model.predict(scaled), model.predict(batch), rtol=1e-3, atol=1e-3)


def test_pixels_of_any_grid_are_fitted() -> None:
    """Wavelengths without a rule: spectra of the templates themselves, without noise, have their redshifts."""
    places = np.cumsum(np.append(4000.0, np.random.default_rng(1).uniform(5, 15, 400)))
    context = ModelContext((SpectrumKind(WavelengthGrid.of_values(places)),), FINE_GRID, seed=1)
    chosen = SpectrumTemplateSettings(components=4, polynomial=0, floor=0.01, resolution=500, prior="flat")  # type: ignore[arg-type]
    model = SpectrumTemplate(chosen, context)
    made, _ = pca.of_seds([], model.axis.rest, model.resolution, 4)
    z = np.linspace(0.05, 0.45, 60)
    flux = np.array([np.interp(places / (1 + one), made.wave, made.scale @ made.flux) for one in z], np.float32)
    rows = LabelledBatch(
        Spectra.of(flux, np.full_like(flux, 1e4) / np.median(flux) ** 2, context.of(SpectrumKind).grid), z, np.ones(60)
    )
    model.fit(rows, rows, contract.CPU, lambda line: None)
    found = FINE_GRID.z[model.predict(rows.batch).argmax(1).numpy()]
    assert np.abs(found - z).max() < 2 * FINE_GRID.step


# ------------------------------------------------------------------------------------------------ templates


def file_of_seds(path: Path, number: int, longest: float = 20_000.0) -> Path:
    wave = np.linspace(500, longest, 300)
    rng = np.random.default_rng(1)
    fluxes = [np.exp(-0.5 * ((wave - 6000) / rng.uniform(2000, 5000)) ** 2) for _ in range(number)]
    pq.write_table(
        pa.table({"name": [f"sed {n}" for n in range(number)], "wave": [wave.tolist()] * number, "flux": fluxes}), path
    )
    return path


def test_templates_of_seds_describe_them() -> None:
    axis = Axis.of(FINE, FINE_GRID)
    few, many = (pca.of_seds([], axis.rest, 500, components)[0] for components in (2, 12))
    assert few.flux.shape == (2, axis.rest.size)
    np.testing.assert_allclose(few.flux, many.flux[:2], rtol=1e-6)
    assert (np.diff(many.scale) <= 0).all()
    typical = np.sqrt(((many.scale[:, None] * many.flux) ** 2).sum(0))
    gram = (many.flux / typical) @ (many.flux / typical).T
    np.testing.assert_allclose(gram, np.eye(12), atol=0.05)


def test_seds_of_a_file_are_used_and_too_few_are_refused(tmp_path: Path) -> None:
    rows = labelled(200, 1), labelled(100, 2)
    seds = file_of_seds(tmp_path / "seds.parquet", 30)
    facts = contract.fitted("spectrum_template", {**QUICK, "seds": [str(seds)]}, *rows)[1]
    assert facts["seds"] == 30
    short = file_of_seds(tmp_path / "short.parquet", 30, longest=8000)
    with pytest.raises(ConfigError, match="0 of 30 SEDs cover"):
        contract.fitted("spectrum_template", {**QUICK, "seds": [str(short)]}, *rows)


def test_templates_are_written_and_read_in_the_format_of_redrock(tmp_path: Path) -> None:
    axis = Axis.of(FINE, FINE_GRID)
    made, _ = pca.of_seds([], axis.rest, 500, 3)
    pca.write(tmp_path / "galaxies.fits", made, "GALAXY", np.array([0.1, 0.2, 0.4]))
    found = pca.read(tmp_path / "galaxies.fits")
    assert found.name == "GALAXY" and found.z == (0.1, 0.4)
    np.testing.assert_allclose(found.wave, made.wave, rtol=1e-9)
    ratio = found.flux / made.flux
    np.testing.assert_allclose(ratio, ratio[:, :1].repeat(ratio.shape[1], 1), rtol=1e-5)


def test_classes_are_fitted_at_their_redshifts_only(tmp_path: Path) -> None:
    axis = Axis.of(WAVELENGTHS, GRID)
    made, _ = pca.of_seds([], axis.rest, 70, 4)
    file = tmp_path / "galaxies.fits"
    pca.write(file, made, "GALAXY", np.array([0.2, 0.3]))
    model, facts = contract.fitted(
        "spectrum_template", {**QUICK, "templates": [str(file)]}, labelled(200, 1), labelled(100, 2)
    )
    assert facts["templates"] == {"GALAXY": 4}
    likelihood = model._likelihood(labelled(3, 3).batch)  # type: ignore[attr-defined]
    inside = torch.as_tensor((model.axis.z >= 0.2) & (model.axis.z <= 0.3))  # type: ignore[attr-defined]
    assert torch.isfinite(likelihood[:, inside]).all() and (likelihood[:, ~inside] == -math.inf).all()
    pca.write(file, made, "GALAXY", np.array([2.0, 3.0]))
    with pytest.raises(ConfigError, match="at no redshift"):
        contract.fitted("spectrum_template", {**QUICK, "templates": [str(file)]}, labelled(200, 1), labelled(100, 2))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"RRTYPE": "STAR"}, "STAR"),
        ({"RRTYPE": None}, "RRTYPE"),
        ({"data": 0.0}, "zeros"),
        ({"EXTNAME": "OTHER"}, "BASIS_VECTORS"),
    ],
)
def test_other_files_are_refused_before_any_job(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    image = fits.PrimaryHDU(np.ones((2, 50)) * change.pop("data", 1.0))
    image.header.update({"EXTNAME": "BASIS_VECTORS", "CRVAL1": 3.5, "CDELT1": 1e-3, "LOGLAM": 1, "RRTYPE": "GALAXY"})
    for key, value in change.items():
        if value is None:
            del image.header[key]
        else:
            image.header[key] = value
    image.writeto(tmp_path / "file.fits")
    found = SpectrumTemplate.unsuitable(
        SpectrumTemplateSettings(templates=(str(tmp_path / "file.fits"),)), {"spectrum": CONTEXT.inputs[0]}
    )
    assert reason in found


def test_a_missing_file_is_refused_before_any_job(tmp_path: Path) -> None:
    for key in ("seds", "templates"):
        found = SpectrumTemplate.unsuitable(
            SpectrumTemplateSettings.model_validate({key: [str(tmp_path / "none")]}), {"spectrum": CONTEXT.inputs[0]}
        )
        assert found.startswith(f"{key}: there is no file")
