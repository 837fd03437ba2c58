"""The template fit: BPZ's own redshifts found again, zero points found again, gaps and non-detections as they should be."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from models import contract
from models.toy_survey import GRID, with_filters
from zmill import sed
from zmill.config import ConfigError, ModelSettings
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.photometry.batch import Photometry, mask_of
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.models import template
from zmill.models.registry import check_models
from zmill.pdf.grid import Grid

BANDS = ("u", "g", "r", "i", "z")
FILTERS = {band: f"sdss2010-{band}" for band in BANDS}
TOY = with_filters("sdss2010-g", "sdss2010-r", "sdss2010-i")


def photometry(mag: np.ndarray, magerr: np.ndarray, maglim: np.ndarray | None = None) -> Photometry:
    """Rows of measurements; a NaN magnitude is a non-detection."""
    n, bands = mag.shape
    undetected = np.isnan(mag)
    none = np.zeros(n, np.int32)
    return Photometry(
        bands=("u", "g", "r", "i", "z", "y")[:bands],
        mag=mag.astype(np.float32),
        magerr=np.where(undetected, np.nan, magerr).astype(np.float32),
        maglim=(np.full(mag.shape, np.nan) if maglim is None else np.where(undetected, maglim, np.nan)).astype("f4"),
        undetected=mask_of(undetected),
        unobserved=none,
        imputed=none,
        ebv=np.full(n, np.nan, np.float32),
        extra=np.zeros((n, 0), np.float32),
        reference=min(3, bands - 1),
    )


def galaxies(n: int, seed: int, offset: float = 0.0) -> LabelledBatch:
    """Galaxies of BPZ's own spectra seen by SDSS, `offset` magnitudes too faint in z, with errors of 0.02 mag."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(0, 1.2, 121)
    table = template.template_fluxes(sed.load_filters(list(FILTERS.values())), grid, 0, True)
    z = rng.uniform(0.05, 1.1, n)
    flux = sed.interpolate_types(table, grid, z, rng.uniform(0, 5, n))
    mag = -2.5 * np.log10(flux / flux[:, 3:4]) + rng.uniform(19, 22, (n, 1)) + rng.normal(0, 0.02, (n, 5))
    mag[:, 4] += offset
    return LabelledBatch(photometry(mag, np.full(mag.shape, 0.02)), z, np.ones(n))


def fitted(settings: dict[str, object], offset: float = 0.0) -> tuple[template.TemplateFit, dict[str, object]]:
    context = ModelContext((PhotometryKind(BANDS, 3, filters=FILTERS),), GRID, seed=1)
    model = template.TemplateFit(template.TemplateSettings.model_validate(settings), context)
    facts = model.fit(galaxies(400, 1, offset), galaxies(150, 2, offset), contract.CPU, lambda line: None)
    return model, facts


# ------------------------------------------------------------------------------------------------ against BPZ


def bpz_rows(folder: Path) -> Photometry:
    """The reference's photometry with the errors BPZ was given.

    Its columns file names the error of g for r as well, and BPZ takes (10^(0.4 e) - 1) f for the error of a flux where
    we take e / 1.0857 f: both are put into the errors here, so that the two programs fit the same numbers.
    """
    with h5py.File(folder / "test1000.h5") as file:
        names = [name.decode() for name in file["df/block2_items"][:]]
        values = file["df/block2_values"][:].astype(np.float64)
    bands = "ugrizy"
    mag = values[:, [names.index(f"scatmag_{band}") for band in bands]]
    error = values[:, [names.index(f"scaterr_{band}") for band in "uggizy"]]
    seen = mag < 90
    fraction = np.where(seen, 10 ** (0.4 * np.where(seen, error, 0)) - 1, 0)
    return photometry(np.where(seen, mag, np.nan), fraction * template.MAGNITUDES, error)


def bpz_model() -> template.TemplateFit:
    """Templates, prior, grid and settings of test1000.pars; DESC's filters as they come with the package."""
    spec = importlib.util.find_spec("desc_bpz")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "data_files" / "FILTER"
    curves = [np.loadtxt(folder / f"DC2LSST_{band}.res") for band in "ugrizy"]
    filters = tuple(sed.Filter(band, curve[:, 0], curve[:, 1]) for band, curve in zip("ugrizy", curves, strict=True))
    grid = Grid(0.005, 3.505, 351)
    settings = template.TemplateSettings(prior="hdfn", per_gap=0, amplitude="profile", igm=False)
    model = template.TemplateFit(settings, ModelContext((PhotometryKind(tuple("ugrizy"), 3),), grid, seed=1))
    table = torch.from_numpy(template.template_fluxes(filters, grid.z, 0, False)).float()
    # columns file: zero point error 0.005 mag; BPZ convolves with exp(-(z / 0.03)^2)
    state = {"table": table, "zero_points": torch.zeros(6), "fill": torch.zeros(6)}
    model.restore(state, {"floor": 0.005, "smoothing": 0.03 / np.sqrt(2)})
    return model


def test_finds_the_redshifts_and_densities_of_bpz(real_data: Path) -> None:
    folder = real_data / "bpz_reference"
    density = bpz_model().predict(bpz_rows(folder)).double().numpy()
    with h5py.File(folder / "test1000.bpz.h5") as file:
        z_b = file["Z_B"][:]
    with h5py.File(folder / "test1000_probs.h5") as file:
        pdf, grid = file["PDF"][:], file["ZGRID"][:]
    agree = np.abs(grid[density.argmax(1)] - z_b) < 0.02
    assert len(agree) == 1024
    assert agree.mean() > 0.985  # the other rows: docs/models/template.md
    assert np.median(np.abs(density / density.sum(1, keepdims=True) - pdf).sum(1)) < 0.01


# ------------------------------------------------------------------------------------------------ by construction


def test_finds_galaxies_of_its_own_spectra() -> None:
    model, _ = fitted({"per_gap": 2})
    test = galaxies(300, 3)
    density = model.predict(test.batch)
    torch.testing.assert_close(GRID.integral(density), torch.ones(300), rtol=1e-3, atol=1e-3)
    delta = (contract.median(density) - test.z) / (1 + test.z)
    assert 1.4826 * np.median(np.abs(delta)) < 0.02
    assert (np.abs(delta) > 0.15).mean() < 0.08


def test_finds_a_zero_point() -> None:
    _, facts = fitted({"prior": "flat"}, offset=0.15)
    zero_points = facts["zero_points"]
    assert isinstance(zero_points, dict)
    assert zero_points["i"] == 0
    assert zero_points["z"] == pytest.approx(0.15, abs=0.03)
    assert abs(zero_points["g"]) < 0.03


def test_posterior_is_the_sum_over_templates_of_prior_times_likelihood() -> None:
    """The matrix form against the formula written out, one cell at a time."""
    model, _ = fitted({"per_gap": 0, "amplitude": "marginal", "floor": 0.05, "smoothing": 0.0})
    batch = galaxies(4, 4).batch
    flux, weight = (t.double().numpy() for t in model._fluxes(batch))
    prior = template.log_prior("ngvs", GRID.z, 0)
    magnitudes = template.prior_magnitudes()
    density = model.predict(batch).double().numpy()
    for row in range(4):
        level = np.abs(magnitudes - batch.mag[row, 3]).argmin()
        expected = np.zeros(GRID.size)
        cells = {}
        for cell in range(GRID.size):
            for kind in range(8):
                t = model.table[cell, kind].double().numpy()
                tt, ot = (weight[row] * t * t).sum(), (weight[row] * flux[row] * t).sum()
                chi2 = (weight[row] * (flux[row] - max(ot / tt, 0) * t) ** 2).sum()
                cells[cell, kind] = -chi2 / 2 - np.log(tt) / 2 + prior[level, kind, cell]
        best = max(cells.values())
        for (cell, _), value in cells.items():
            expected[cell] += np.exp(value - best)
        expected /= np.trapezoid(expected, GRID.z)
        np.testing.assert_allclose(density[row], expected, atol=0.02 * expected.max())


def test_a_limit_tells_more_than_nothing() -> None:
    """A non-detection in u with a deep limit rules out what would be seen there; one without a limit says nothing."""
    model, _ = fitted({"floor": 0.05, "smoothing": 0.0})
    rows = galaxies(50, 5).batch
    gone = np.where(np.arange(5) == 0, np.nan, rows.mag)
    limit = np.full(gone.shape, 30.0)
    deep, none = photometry(gone, rows.magerr, limit), photometry(gone, rows.magerr)
    unobserved = replace(none, undetected=np.zeros(50, np.int32), unobserved=none.undetected)
    assert torch.equal(model.predict(none), model.predict(unobserved))
    assert (model.predict(deep) - model.predict(none)).abs().amax(1).median() > 0.1


@pytest.mark.parametrize("kind", ["hdfn", "ngvs"])
def test_priors_are_fainter_further(kind: str) -> None:
    z = GRID.z
    prior = np.exp(template.log_prior(kind, z, 2).astype(np.float64)).sum(1)
    mean = (prior * z).sum(1) / prior.sum(1)
    levels = template.prior_magnitudes()
    assert prior.shape == (len(levels), GRID.size)
    means = [mean[np.abs(levels - m).argmin()] for m in (20.5, 22.0, 24.0)]
    assert means == sorted(means)
    assert 0.2 < means[0] < means[-1] < 1.2
    bright = mean[np.abs(levels - 15.0).argmin()]
    assert bright < 0.15 if kind == "ngvs" else bright == pytest.approx(mean[np.abs(levels - 20.0).argmin()])


def test_below_the_first_bin_ngvs_is_flat() -> None:
    assert np.ptp(template.log_prior("ngvs", GRID.z, 0)[0].sum(0)) == pytest.approx(0, abs=1e-4)


# ------------------------------------------------------------------------------------------------ the contract


def test_saved_and_repeatable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract.toy_survey, "CONTEXT", TOY)
    contract.is_saved_and_repeatable("template", {"per_gap": 0}, tmp_path)


def test_zero_points_by_training_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract.toy_survey, "CONTEXT", TOY)
    contract.scales_by_training_rows_alone("template", {"per_gap": 0}, ("zero_points", "fill", "table"))


def test_refit_learns_from_more_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract.toy_survey, "CONTEXT", TOY)
    contract.refit_learns("template", {"per_gap": 0})


def test_rows_with_missing_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract.toy_survey, "CONTEXT", TOY)
    contract.predicts_rows_with_missing_bands("template", {"per_gap": 0})


def test_a_band_without_a_filter_is_named() -> None:
    with pytest.raises(ConfigError, match="needs the filter curve of every band; g, r, i has none"):
        contract.fitted("template", {}, galaxies(60, 1), galaxies(60, 2))


def test_a_filter_that_speclite_does_not_know_is_named() -> None:
    context = ModelContext((PhotometryKind(BANDS, 3, filters=FILTERS | {"u": "sdss2010-q"}),), GRID, seed=1)
    model = template.TemplateFit(template.TemplateSettings(), context)
    with pytest.raises(ConfigError, match=r"the survey definition's filters: .*sdss2010"):
        model.fit(galaxies(60, 1), galaxies(60, 2), contract.CPU, lambda line: None)


def test_wrong_settings_are_refused() -> None:
    for settings, message in (({"prior": "hdf"}, "'ngvs', 'hdfn' or 'flat'"), ({"floor": []}, "at least one number")):
        with pytest.raises(ConfigError, match=message):
            check_models({"template": ModelSettings.model_validate(settings)})
