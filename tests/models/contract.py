"""What holds for every trainable model; the tests of each call these with its type and small settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from models import toy_both, toy_images, toy_images_photometry, toy_spectra, toy_survey
from zmill.inputs.base import LabelledBatch
from zmill.models.base import Model
from zmill.models.registry import model_class, types
from zmill.networks.losses import mean_crps
from zmill.pdf.grid import Grid
from zmill.training import store
from zmill.training.samples import read_samples
from zmill.training.trained import fit_and_calibrate

CPU = torch.device("cpu")
TOYS: dict[tuple[str, ...], Any] = {
    ("photometry",): toy_survey,
    ("spectrum",): toy_spectra,
    ("photometry", "spectrum"): toy_both,
    ("image",): toy_images,
    ("photometry", "image"): toy_images_photometry,
}
"""Input kinds of a model -> a module with rows of these kinds, their context and redshift grid."""
QUICK: dict[str, dict[str, Any]] = {type_: model_class(type_).quick for type_ in types()}
"""Settings with which every type is trained in seconds; the tests of each have settings that learn."""


def toy(type_: str) -> Any:
    """The module with rows that a model type takes."""
    return TOYS[model_class(type_).inputs]


PHOTOMETRIC = [type_ for type_ in types() if toy(type_) is toy_survey]
"""The types that take photometry alone."""


def fitted(
    type_: str, settings: dict[str, Any], train: LabelledBatch, valid: LabelledBatch
) -> tuple[Model, dict[str, Any]]:
    """A fitted model and its facts."""
    cls = model_class(type_)
    model = cls(cls.Settings.model_validate(settings), toy(type_).CONTEXT)
    facts = model.fit(train, valid, CPU, lambda line: None)
    return model, facts


def median(density: torch.Tensor, grid: Grid = toy_survey.GRID) -> np.ndarray:
    """(n,) medians of densities on a grid."""
    return grid.z[(grid.cdf(density) < 0.5).sum(1).clamp(max=grid.size - 1)]


def is_accurate(type_: str, settings: dict[str, Any], sigma: float) -> None:
    """The toy relation is learned, and densities are normalized and finite."""
    labelled, grid = toy(type_).labelled, toy(type_).GRID
    model, _ = fitted(type_, settings, labelled(1500, 1), labelled(300, 2))
    test = labelled(500, 3)
    density = model.predict(test.batch)
    assert density.shape == (500, grid.size)
    assert density.dtype == torch.float32
    assert (density >= 0).all()
    torch.testing.assert_close(grid.integral(density), torch.ones(500), rtol=1e-3, atol=1e-3)
    delta = (median(density, grid) - test.z) / (1 + test.z)
    assert 1.4826 * np.median(np.abs(delta)) < sigma


def is_saved_and_repeatable(type_: str, settings: dict[str, Any], folder: Path) -> None:
    """Same seed, same bytes; a loaded model predicts the same; a batch may have one row."""
    cls, labelled = model_class(type_), toy(type_).labelled
    rows = labelled(400, 1), labelled(150, 2), labelled(150, 3)
    batch = labelled(70, 4).batch
    for name in ("one", "two"):
        trained = fit_and_calibrate(
            name, type_, cls.Settings.model_validate(settings), toy(type_).CONTEXT, *rows, CPU, lambda line: None
        )
        store.save(folder / name, trained)
    hashes = {store.describe(folder / name)["tensors_hash"] for name in ("one", "two")}
    assert len(hashes) == 1
    loaded = store.load(folder / "two")
    assert torch.equal(loaded.predict(batch), trained.predict(batch))
    torch.testing.assert_close(loaded.predict(batch[:1]), trained.predict(batch)[:1], rtol=0.05, atol=0.02)


def scales_by_training_rows_alone(type_: str, settings: dict[str, Any], names: tuple[str, ...]) -> None:
    """Photometry of validation rows changes none of the learned numbers of the preprocessing."""
    labelled = toy_survey.labelled
    train, valid = labelled(400, 1), labelled(150, 2)
    strange = replace(valid, batch=replace(valid.batch, mag=valid.batch.mag + np.float32(3.0)))
    states = [fitted(type_, settings, train, choosing)[0].state()[0] for choosing in (valid, strange)]
    for name in names:
        assert torch.equal(states[0][name], states[1][name])


def refit_learns(type_: str, settings: dict[str, Any]) -> None:
    """After a refit on more rows it predicts differently and no worse, with what validation rows chose, and is saved so."""
    labelled, grid = toy(type_).labelled, toy(type_).GRID
    few, more, valid, test = labelled(300, 1), labelled(1500, 4), labelled(200, 2), labelled(500, 3)
    model, _ = fitted(type_, settings, few, valid)
    before, chosen = model.predict(test.batch), model.state()[1]
    model.refit(LabelledBatch.join([few, more]), CPU, lambda line: None)
    model.to(CPU)
    after = model.predict(test.batch)
    assert not torch.equal(before, after)
    torch.testing.assert_close(grid.integral(after), torch.ones(500), rtol=1e-3, atol=1e-3)
    z = torch.as_tensor(test.z, dtype=torch.float32)
    assert mean_crps(after, z, grid) < 1.02 * mean_crps(before, z, grid)
    for name in ("k", "width", "floor", "magnitude", "smoothing", "bump", "sharpen", "epochs", "student_nu"):
        assert model.state()[1].get(name) == chosen.get(name), name
    loaded = type(model)(model.settings, toy(type_).CONTEXT)
    loaded.restore(*model.state())
    assert torch.equal(loaded.predict(test.batch), after)


def predicts_rows_with_missing_bands(type_: str, settings: dict[str, Any]) -> None:
    """Any subset of bands gives a density, nothing observed included."""
    labelled, grid = toy_survey.labelled, toy_survey.GRID
    model, _ = fitted(type_, settings, labelled(400, 1), labelled(150, 2))
    batch = labelled(8, 5).batch
    gaps = np.arange(8, dtype=np.int32)
    gone = (gaps[:, None] >> np.arange(3)) & 1 == 1
    batch = replace(batch, mag=np.where(gone, np.nan, batch.mag).astype(np.float32), unobserved=gaps)
    density = model.predict(batch)
    assert torch.isfinite(density).all()
    torch.testing.assert_close(grid.integral(density), torch.ones(8), rtol=1e-3, atol=1e-3)


def streams(type_: str, settings: dict[str, Any], folder: Path) -> None:
    """Rows on disk and the same rows in memory give the same model."""
    context, states = toy(type_).CONTEXT, []
    for seed, name in enumerate(("train", "valid")):
        pq.write_table(toy(type_).sample_table(300, seed), folder / f"{name}.parquet", row_group_size=130)
    for most_bytes in (1 << 40, 0):
        tables = {name: folder / f"{name}.parquet" for name in ("train", "valid")}
        samples = read_samples(tables, context, most_bytes=most_bytes)
        brief = {"epochs": 1} if "epochs" in model_class(type_).Settings.model_fields else {}
        model, _ = fitted(type_, settings | brief, samples["train"].rows, samples["valid"].rows)
        states.append(model.state()[0])
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
