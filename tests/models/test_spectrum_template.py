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

from models import contract
from models.toy_spectra import CONTEXT, GRID, WAVELENGTHS, labelled
from zmill.config import ConfigError
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.spectrum.batch import Spectra
from zmill.inputs.spectrum.grid import WavelengthGrid
from zmill.inputs.spectrum.kind import SpectrumKind
from zmill.models.spectrum_template import (
    SpectrumTemplate,
    SpectrumTemplateSettings,
)
from zmill.networks.template_fit import Axis
from zmill.pdf.grid import Grid
from zmill.restframe import pca

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
    axis = Axis.of(FINE.wavelength, FINE.log_step, FINE_GRID)
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
    axis = Axis.of(FINE.wavelength, FINE.log_step, FINE_GRID)
    made, _ = pca.of_seds([], axis.rest, 500, 3)
    pca.write(tmp_path / "galaxies.fits", made, "GALAXY", np.array([0.1, 0.2, 0.4]))
    found = pca.read(tmp_path / "galaxies.fits")
    assert found.name == "GALAXY" and found.z == (0.1, 0.4) and found.absorption == made.absorption == "Calura12"
    np.testing.assert_allclose(found.wave, made.wave, rtol=1e-9)
    ratio = found.flux / made.flux
    np.testing.assert_allclose(ratio, ratio[:, :1].repeat(ratio.shape[1], 1), rtol=1e-5)


def test_classes_are_fitted_at_their_redshifts_only(tmp_path: Path) -> None:
    axis = Axis.of(WAVELENGTHS.wavelength, WAVELENGTHS.log_step, GRID)
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
        ({"RRIGM": "Inoue14"}, "found Inoue14"),
        ({"RRIGM": None}, "found nothing"),
        ({"RRTYPE": None}, "RRTYPE"),
        ({"data": 0.0}, "zeros"),
        ({"EXTNAME": "OTHER"}, "BASIS_VECTORS"),
    ],
)
def test_other_files_are_refused_before_any_job(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    image = fits.PrimaryHDU(np.ones((2, 50)) * change.pop("data", 1.0))
    image.header.update(
        {"EXTNAME": "BASIS_VECTORS", "CRVAL1": 3.5, "CDELT1": 1e-3, "LOGLAM": 1, "RRTYPE": "GALAXY", "RRIGM": "None"}
    )
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


def test_published_templates_without_the_key_have_the_absorption_that_they_were_made_with(tmp_path: Path) -> None:
    image = fits.PrimaryHDU(np.ones((2, 50)))
    image.header.update({"EXTNAME": "BASIS_VECTORS", "CRVAL1": 3.5, "CDELT1": 1e-3, "LOGLAM": 1})
    for kind, version, expected in (
        ("QSO", "1.1 ", "Kamble20"),
        ("QSO", "1.0", "Calura12"),
        ("GALAXY", "2.6", "Calura12"),
    ):
        image.header.update({"RRTYPE": kind, "VERSION": version})
        image.writeto(tmp_path / "file.fits", overwrite=True)
        assert pca.read(tmp_path / "file.fits").absorption == expected


def test_a_missing_file_is_refused_before_any_job(tmp_path: Path) -> None:
    for key in ("seds", "templates"):
        found = SpectrumTemplate.unsuitable(
            SpectrumTemplateSettings.model_validate({key: [str(tmp_path / "none")]}), {"spectrum": CONTEXT.inputs[0]}
        )
        assert found.startswith(f"{key}: there is no file")
