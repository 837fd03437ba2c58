"""The residual networks: accuracy, inputs, losses, pre-training, saving and reproducibility."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inputs.photometry.test_synthetic import CONTEXT as WITH_FILTERS
from inputs.photometry.test_synthetic import galaxies
from models import contract
from models.toy_survey import CONTEXT, GRID, labelled
from zmill import metrics
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.models import resmlp
from zmill.models.registry import model_class
from zmill.models.resmlp import ResidualEnsemble, ResMLPSettings
from zmill.networks.losses import (
    cross_entropy,
    crps_of_probabilities,
    density_loss,
    mean_cde_loss,
    mean_crps,
    soft_labels,
)
from zmill.pdf.scores import pdf_scores

QUICK = {"epochs": 12, "members": 2, "width": 48, "blocks": 2, "frequencies": 4, "embedding": 2, "weight_decay": 0.01}


@pytest.mark.parametrize("frequencies", [0, 4])
def test_learns_the_toy_relation(frequencies: int) -> None:
    contract.is_accurate("resmlp", QUICK | {"frequencies": frequencies, "batch": 128, "lr": 8e-3, "ema": 0.9}, 0.06)


def test_saved_and_repeatable(tmp_path: Path) -> None:
    contract.is_saved_and_repeatable("resmlp", QUICK | {"epochs": 3}, tmp_path)


def test_scales_by_training_rows_alone() -> None:
    names = ("features.softening", "features.offset", "features.scale")
    contract.scales_by_training_rows_alone("resmlp", QUICK | {"epochs": 2}, names)


def test_rows_with_missing_bands() -> None:
    contract.predicts_rows_with_missing_bands("resmlp", QUICK | {"epochs": 3})


def test_a_lost_band_widens_the_density() -> None:
    settings = QUICK | {"band_dropout": 0.4, "batch": 128, "lr": 8e-3, "ema": 0.9}
    model, _ = contract.fitted("resmlp", settings, labelled(1500, 1), labelled(300, 2))
    whole = labelled(300, 3).batch
    lost = replace(whole, unobserved=np.full(300, 1, np.int32), imputed=np.full(300, 1, np.int32))

    def spread(density: torch.Tensor) -> float:
        mean = (density * GRID.tensor()).sum(1, keepdim=True) * GRID.step
        return float(((GRID.tensor() - mean).square() * density).sum(1).mul(GRID.step).sqrt().median())

    assert spread(model.predict(lost)) > 1.2 * spread(model.predict(whole))


def test_facts_hold_the_learning_curves() -> None:
    _, facts = contract.fitted("resmlp", QUICK | {"epochs": 4}, labelled(300, 1), labelled(100, 2))
    assert [look["epoch"] for look in facts["history"]] == [2, 4]
    assert facts["best_score"] == pytest.approx(min(look["score"] for look in facts["history"]), abs=1e-6)


def test_members_differ() -> None:
    model, _ = contract.fitted("resmlp", QUICK | {"epochs": 2}, labelled(300, 1), labelled(100, 2))
    weight = model.state()[0]["network.stem.weight"]
    assert not torch.equal(weight[0], weight[1])


def test_another_seed_is_another_model() -> None:
    cls = model_class("resmlp")
    stems = []
    for seed in (1, 2):
        model = cls(ResMLPSettings(**QUICK | {"epochs": 2}), replace(CONTEXT, seed=seed))
        model.fit(labelled(300, 1), labelled(100, 2), contract.CPU, lambda line: None)
        stems.append(model.state()[0]["network.stem.weight"])
    assert not torch.equal(*stems)


@pytest.mark.parametrize("width", [0.0, 0.01])
def test_soft_labels_keep_the_redshift(width: float) -> None:
    z = torch.tensor([0.1234, 0.7, 1.5551])
    label = soft_labels(z, GRID, width)
    torch.testing.assert_close(label.sum(1), torch.ones(3))
    torch.testing.assert_close(label @ GRID.tensor(), z, rtol=1e-3, atol=1e-3)


def test_losses_are_smallest_for_the_truth() -> None:
    z = torch.tensor([0.5, 1.0])
    label = soft_labels(z, GRID, 0.02)
    right, wrong = label.clamp_min(1e-9).log(), soft_labels(z + 0.2, GRID, 0.02).clamp_min(1e-9).log()
    assert (cross_entropy(right, label) < cross_entropy(wrong, label)).all()
    assert (crps_of_probabilities(right.softmax(-1), z, GRID) < crps_of_probabilities(wrong.softmax(-1), z, GRID)).all()


@pytest.mark.parametrize("crps", [0.0, 0.5])
def test_the_loss_of_a_density_is_cross_entropy_and_crps(crps: float) -> None:
    logits = torch.randn(2, 30, GRID.size, requires_grad=True)
    z, each = torch.rand(2, 30) * GRID.z_max, torch.rand(2, 30)
    value = density_loss(logits, z, GRID, 0.01, crps)
    plain = cross_entropy(logits, soft_labels(z, GRID, 0.01))
    plain = plain + crps * crps_of_probabilities(logits.softmax(-1), z, GRID)
    torch.testing.assert_close(value, plain)
    gradients = [torch.autograd.grad((of * each).sum(), logits)[0] for of in (value, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_crps_of_a_gaussian() -> None:
    """sigma (1/sqrt(pi)) (sqrt(2) - 1) at the center (Gneiting & Raftery 2007, eq. 21)."""
    sigma = 0.1
    density = GRID.normalize(torch.exp(-0.5 * ((GRID.tensor() - 1.0) / sigma) ** 2)[None])
    expected = sigma * (2 * 0.3989423 - 1 / np.pi**0.5)
    assert mean_crps(density, torch.tensor([1.0]), GRID) == pytest.approx(expected, rel=0.01)
    share = density * GRID.step
    assert float(crps_of_probabilities(share, torch.tensor([1.0]), GRID)) == pytest.approx(expected, rel=0.02)


def test_the_cde_loss_is_that_of_the_metrics() -> None:
    density = GRID.normalize(torch.rand(40, GRID.size))
    z = torch.rand(40) * GRID.z_max
    expected = metrics.pdf_metrics(pdf_scores(density, GRID, z.double().numpy()))["cde_loss"]
    assert mean_cde_loss(density, z, GRID) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("max_rows", "epochs"), [(10_000, 4), (900, 3), (899, 2), (10, 1)])
def test_with_many_rows_there_are_fewer_epochs_and_a_log_line(max_rows: int, epochs: int) -> None:
    settings = ResMLPSettings(**QUICK | {"epochs": 4, "max_rows": max_rows, "validate_every": 1})
    model, lines = ResidualEnsemble(settings, CONTEXT), list[str]()
    facts = model.fit(labelled(300, 1), labelled(100, 2), contract.CPU, lines.append)
    assert [look["epoch"] for look in facts["history"]] == list(range(1, epochs + 1))
    assert any(f"{epochs} epochs of 300 rows instead of 4" in line for line in lines) == (epochs < 4)


@pytest.mark.parametrize(("number", "members"), [(300, 1), (301, 2), (0, 2)])
def test_as_many_rows_as_synthetic_galaxies_train_as_few_members(number: int, members: int) -> None:
    settings = ResMLPSettings(**QUICK | {"epochs": 1, "synthetic_galaxies": number, "finetuned_members": 1})
    model = ResidualEnsemble(settings, CONTEXT)
    model.fit(labelled(300, 1), labelled(100, 2), contract.CPU, lambda line: None)
    assert model.network.members == members
    model.refit(labelled(400, 1), contract.CPU, lambda line: None)
    assert model.network.members == members


def test_pretraining_improves_the_accuracy_with_few_rows() -> None:
    train, valid, test = (galaxies(n, seed) for n, seed in ((300, 1), (150, 2), (600, 3)))
    scores = {}
    for number in (0, 20_000):
        settings = QUICK | {
            "epochs": 40,
            "lr": 8e-3,
            "synthetic_galaxies": number,
            "pretraining_epochs": 4,
            "finetuning_epochs": 10,
        }
        model = model_class("resmlp")(ResMLPSettings(**settings), WITH_FILTERS)
        model.fit(train, valid, contract.CPU, lambda line: None)
        density = model.predict(test.batch)
        scores[number] = mean_crps(density, torch.as_tensor(test.z, dtype=torch.float32), GRID)
    assert scores[20_000] < 0.8 * scores[0]


def test_synthetic_galaxies_are_made_from_training_rows_alone() -> None:
    before = []
    for valid in (galaxies(100, 2), galaxies(150, 3)):
        model = ResidualEnsemble(
            ResMLPSettings(**QUICK | {"synthetic_galaxies": 600, "pretraining_epochs": 1}), WITH_FILTERS
        )
        model.fit(galaxies(250, 1), valid, contract.CPU, lambda line: None)
        assert model.pretrained is not None
        before.append(model.pretrained)
    assert all(torch.equal(value, before[1][name]) for name, value in before[0].items())


def test_without_the_filter_of_a_band_there_is_no_pretraining_and_a_log_line() -> None:
    survey = WITH_FILTERS.of(PhotometryKind)
    unknown = replace(WITH_FILTERS, inputs=(replace(survey, filters={"g": survey.filters["g"]}),))
    model = ResidualEnsemble(ResMLPSettings(**QUICK | {"epochs": 2}), unknown)
    lines: list[str] = []
    model.fit(galaxies(250, 1), galaxies(100, 2), contract.CPU, lines.append)
    assert model.pretrained is None
    assert "`filters` lack u, r, i, z" in lines[0]


def test_unseen_galaxies_are_made_and_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(resmlp, "train", lambda network, rows, *_, **__: counts.append(rows) or {"best_epoch": 1})
    model = ResidualEnsemble(ResMLPSettings(**QUICK | {"synthetic_galaxies": 600}), WITH_FILTERS)
    model.unseen_galaxies = 50
    model.fit(galaxies(250, 1), galaxies(100, 2), contract.CPU, lambda line: None)
    assert counts == [600, 250]
    assert model.unseen is not None
    assert len(model.unseen) == 50


def test_the_bits_do_not_depend_on_the_number_of_cores() -> None:
    weights = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        model, _ = contract.fitted("resmlp", QUICK | {"epochs": 2}, labelled(600, 1), labelled(100, 2))
        assert torch.get_num_threads() == threads
        torch.set_num_threads(before)
        weights.append(model.state()[0])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_refit_starts_from_the_pretrained_weights() -> None:
    model = ResidualEnsemble(
        ResMLPSettings(**QUICK | {"synthetic_galaxies": 600, "pretraining_epochs": 1, "finetuning_epochs": 2}),
        WITH_FILTERS,
    )
    lines: list[str] = []
    model.fit(galaxies(250, 1), galaxies(100, 2), contract.CPU, lines.append)
    before, scale = model.pretrained, model.features.scale.clone()
    model.refit(galaxies(350, 1), contract.CPU, lines.append)
    assert model.pretrained is before
    assert torch.equal(model.features.scale, scale)
    assert sum("pre-training" in line and "epoch 1 of 1" in line for line in lines) == 1
