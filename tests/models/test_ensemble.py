"""The flagship: the mean of its parts, distilled into one network, saved and repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inputs.photometry.test_synthetic import CONTEXT as WITH_FILTERS
from inputs.photometry.test_synthetic import galaxies
from models import contract
from models.toy_survey import CONTEXT, labelled
from zmill import metrics
from zmill.config import ConfigError, ModelSettings
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.features import Fluxes
from zmill.models.ensemble import Ensemble, EnsembleSettings
from zmill.models.registry import check_models
from zmill.networks.distillation import PER_ROW
from zmill.pdf.calibration import Calibration
from zmill.pdf.scores import pdf_scores

SHAPE = {"width": 48, "frequencies": 4, "embedding": 2, "lr": 8e-3, "ema": 0.9}
QUICK: dict[str, Any] = {
    "networks": {**SHAPE, "epochs": 12, "members": 2, "blocks": 2, "batch": 128},
    "neighbors": {**SHAPE, "epochs": 12, "members": 1, "dimensions": 8, "candidates": 1000, "batch": 128},
    "distilled": {**SHAPE, "epochs": 2},
}
BRIEF = {name: part | {"epochs": 1} for name, part in QUICK.items()}


@pytest.mark.parametrize("distill", [False, True])
def test_learns_the_toy_relation(distill: bool) -> None:
    contract.is_accurate("ensemble", QUICK | {"distill": distill}, 0.06)


@pytest.mark.parametrize("distill", [False, True])
def test_saved_and_repeatable(tmp_path: Path, distill: bool) -> None:
    contract.is_saved_and_repeatable("ensemble", BRIEF | {"distill": distill}, tmp_path)


def test_scales_by_training_rows_alone() -> None:
    names = ("features.softening", "features.offset", "features.scale")
    contract.scales_by_training_rows_alone("ensemble", BRIEF, names)


def test_rows_with_missing_bands() -> None:
    contract.predicts_rows_with_missing_bands("ensemble", BRIEF)


def test_refit_learns_from_more_rows() -> None:
    contract.refit_learns("ensemble", QUICK)


def parts(model: Any, batch: Photometry) -> list[torch.Tensor]:
    """Densities of the three parts."""
    fluxes = Fluxes.of(batch, ())
    return [part.densities(fluxes) for part in (model.networks, model.neighbors, model.color_neighbors)]


def mean(model: Any, batch: Photometry) -> torch.Tensor:
    """Their mean, with the stacking weights that validation rows chose."""
    return sum(weight * density for weight, density in zip(model.weights, parts(model, batch), strict=True))


def test_the_ensemble_is_the_mean_of_its_parts() -> None:
    model, facts = contract.fitted("ensemble", BRIEF | {"distill": False}, labelled(400, 1), labelled(150, 2))
    batch = labelled(50, 3).batch
    torch.testing.assert_close(model.predict(batch), mean(model, batch))
    assert sum(facts["stacking_weights"].values()) == pytest.approx(1)


def test_stacking_weights_have_the_highest_calibrated_log_score() -> None:
    valid = labelled(150, 2)
    model, _ = contract.fitted("ensemble", BRIEF | {"distill": False}, labelled(400, 1), valid)
    found, grid = parts(model, valid.batch), CONTEXT.grid

    def log_score(weights: list[float]) -> float:
        average = sum(weight * density for weight, density in zip(weights, found, strict=True))
        calibrated = [Calibration(power)(average, grid) for power in (1, 1.25, 1.5)]
        return max(metrics.pdf_metrics(pdf_scores(density, grid, valid.z))["log_score"] for density in calibrated)

    chosen = log_score(model.weights)
    assert sum(model.weights) == pytest.approx(1)
    for weights in ([1 / 2, 1 / 2, 0], [1 / 2, 1 / 4, 1 / 4], [2 / 3, 1 / 6, 1 / 6], [5 / 6, 1 / 6, 0]):
        assert chosen >= log_score(weights) - 1e-4


def test_the_distilled_network_reproduces_its_teachers() -> None:
    settings = QUICK | {"distilled": QUICK["distilled"] | {"epochs": 6}}
    model, _ = contract.fitted("ensemble", settings, labelled(1500, 1), labelled(300, 2))
    batch = labelled(500, 3).batch
    student = model.predict(batch)
    overlap = torch.minimum(student, mean(model, batch)).sum(1) * CONTEXT.grid.step
    assert float(overlap.mean()) > 0.85


def test_only_the_distilled_network_is_saved() -> None:
    model, _ = contract.fitted("ensemble", BRIEF, labelled(400, 1), labelled(150, 2))
    tensors, _ = model.state()
    assert {name.split(".")[0] for name in tensors} == {"features", "network"}


def test_further_inputs_are_given_once() -> None:
    entry = ModelSettings.model_validate({"networks": {"extra": ["ebv"]}})
    with pytest.raises(ConfigError, match="give `extra` once"):
        check_models({"ensemble": entry})


def test_an_unknown_key_of_a_part_is_refused() -> None:
    entry = ModelSettings.model_validate({"neighbors": {"dimension": 3}})
    with pytest.raises(ConfigError, match="did you mean 'dimensions'"):
        check_models({"ensemble": entry})


def with_synthetic_galaxies(settings: dict[str, Any], log: Any = lambda line: None) -> tuple[Ensemble, dict[str, Any]]:
    """Fitted where the survey's filters are known, and its facts."""
    quick = BRIEF["networks"] | {"synthetic_galaxies": 400, "pretraining_epochs": 1, "finetuning_epochs": 1}
    model = Ensemble(EnsembleSettings.model_validate(BRIEF | {"networks": quick} | settings), WITH_FILTERS)
    return model, model.fit(galaxies(300, 1), galaxies(120, 2), contract.CPU, log)


def test_half_of_the_distillation_set_are_synthetic_galaxies(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[str, int] = {}

    def counted(name: str) -> None:
        plain = getattr(Ensemble, name)

        def spy(self: Ensemble, *given: Any) -> Any:
            for fluxes, without in plain(self, *given):
                counts[name] = counts.get(name, 0) + len(fluxes.flux)
                yield fluxes, without

        monkeypatch.setattr(Ensemble, name, spy)

    counted("_synthetic")
    counted("_blends")
    _, facts = with_synthetic_galaxies(
        {
            "networks": BRIEF["networks"]
            | {"synthetic_galaxies": 10_000, "pretraining_epochs": 1, "finetuning_epochs": 1}
        }
    )
    assert counts == {"_synthetic": PER_ROW * 300 // 2, "_blends": PER_ROW * 300 // 2}
    assert np.isfinite(facts["distilled"]["best_score"])


def test_learned_neighbors_are_a_part_without_synthetic_galaxies() -> None:
    model, facts = with_synthetic_galaxies({"distill": False})
    assert model.neighbors is None
    assert list(facts["stacking_weights"]) == ["networks", "color_neighbors"]
    model, facts = contract.fitted("ensemble", BRIEF | {"distill": False}, labelled(400, 1), labelled(150, 2))
    assert model.neighbors is not None
    assert list(facts["stacking_weights"]) == ["networks", "neighbors", "color_neighbors"]


def test_an_ensemble_without_learned_neighbors_is_saved(tmp_path: Path) -> None:
    model, _ = with_synthetic_galaxies({"distill": False})
    loaded = Ensemble(model.settings, WITH_FILTERS)
    loaded.restore(*model.state())
    batch = galaxies(30, 3).batch
    assert torch.equal(loaded.predict(batch), model.predict(batch))


def test_refit_fine_tunes_the_distilled_network() -> None:
    """It starts from its own weights: with a learning rate of nearly 0 they stay the same."""
    model, _ = with_synthetic_galaxies({"distilled": BRIEF["distilled"] | {"finetuning_lr": 1e-30}})
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    model.refit(galaxies(400, 1), contract.CPU, lambda line: None)
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())


def test_the_distillation_set_has_the_average_in_the_mean() -> None:
    """Neighbors predict only every second galaxy: the mean over galaxies is that of the average."""
    model, _ = contract.fitted("ensemble", BRIEF | {"distill": False}, labelled(400, 1), labelled(150, 2))
    model.weights = [2 / 3, 0.0, 1 / 3]
    fluxes = Fluxes.of(labelled(200, 3).batch, ())
    alone, both = model.networks.densities(fluxes), model._average([1 / 3, 0.0, 2 / 3], fluxes)
    torch.testing.assert_close((alone + both) / 2, model._average(model.weights, fluxes))


def test_a_part_of_weight_zero_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = contract.fitted("ensemble", BRIEF | {"distill": False}, labelled(400, 1), labelled(150, 2))
    model.weights = [2 / 3, 0.0, 1 / 3]
    monkeypatch.setattr(model.neighbors, "densities", None)
    assert torch.isfinite(model.predict(labelled(20, 3).batch)).all()
