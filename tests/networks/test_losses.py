"""Distributions of labels, and losses that compare distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from zmill.inputs.base import LabelledBatch
from zmill.networks.losses import (
    LabelDistributions,
    Labels,
    LabelSettings,
    bin_of,
    cell_ends,
    cross_entropy,
    jensen_shannon,
    shares,
    soft_labels,
)
from zmill.pdf.grid import Grid

GRID = Grid(0.0, 1.0, 101)


@given(st.floats(0, 0.2), st.floats(0.02, 0.98))
@settings(deadline=None, max_examples=100)
def test_labels_of_any_width_keep_the_redshift(width: float, z: float) -> None:
    """Also where a label is so narrow that a Gaussian would be the same, or nothing, at all points."""
    for given_width in (width, torch.tensor([width])):
        label = soft_labels(torch.tensor([z]), GRID, given_width)
        assert abs(float(label.sum()) - 1) < 1e-5
        sigma = width * (1 + z)
        if sigma < 0.1 * min(z, 1 - z) + 1e-3:
            mean = float((label * GRID.tensor()).sum())
            assert abs(mean - z) < 0.3 * GRID.step
        assert float(label.max()) > 0.9 * min(1, GRID.step / max(sigma * 2.51, GRID.step * 2))


def test_rows_have_labels_of_their_own_width() -> None:
    z = torch.tensor([0.3, 0.3, 0.5])
    label = soft_labels(z, GRID, torch.tensor([0.0, 0.05, 1e-5]))
    deviation = ((label * (GRID.tensor() - z[:, None]) ** 2).sum(1)).sqrt()
    torch.testing.assert_close(deviation, torch.tensor([0.0, 0.065, 0.0]), rtol=1e-2, atol=1e-3)


def test_errors_of_redshifts_widen_labels() -> None:
    rows = LabelledBatch(None, np.array([0.0, 0.25, 1.0]), np.array([1.0, 3.0, 2.0]), np.array([np.nan, 0.05, 0.2]))
    labels = Labels.of(rows, 0.01, torch.device("cpu"))
    torch.testing.assert_close(labels.width, torch.tensor([0.01, np.hypot(0.04, 0.01), np.hypot(0.1, 0.01)]).float())
    torch.testing.assert_close(labels.weight, torch.tensor([0.5, 1.5, 1.0]))
    without = Labels.of(LabelledBatch(None, rows.z, rows.weight), 0.01, torch.device("cpu"))
    torch.testing.assert_close(without.width, torch.full((3,), 0.01))


@given(st.integers(1, 40), st.integers(2, 60))
@settings(deadline=None, max_examples=50)
def test_shares_of_a_bin_sum_to_one_and_fill_the_cells(bins: int, cells: int) -> None:
    ends = np.sort(np.random.default_rng(cells).uniform(0, 1, cells + 1))
    found = shares(bins, ends)
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_allclose(found.sum(0) * (ends[-1] - ends[0]) / bins, np.diff(ends), atol=1e-12)


def test_coarse_labels_are_uniform_in_their_bin() -> None:
    label = LabelDistributions(GRID, cell_ends(GRID), 10)
    z = torch.tensor([0.05, 0.5001, 1.0])
    found = label(Labels(z, torch.zeros(3), torch.ones(3)))
    torch.testing.assert_close(found.sum(1), torch.ones(3))
    assert found[0, 1:10].unique().numel() == 1 and found[0, 12:].sum() == 0
    assert found[2, 91:].sum() > 0.9
    assert bin_of(z, 0.0, 1.0, 10).tolist() == [0, 5, 9]
    same = label(Labels(z + torch.tensor([0.04, 0.09, -0.05]), torch.zeros(3), torch.ones(3)))
    torch.testing.assert_close(found, same)


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_the_divergence_is_that_of_its_definition(seed: int) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(5, 12, dtype=torch.float64) * 3
    q = torch.randn(5, 12, dtype=torch.float64).softmax(1)
    q[0] = 0
    q[0, 3] = 1
    p = logits.softmax(1)
    m = (p + q) / 2
    kl = [(a * (a / m).log().nan_to_num(neginf=0)).sum(1) for a in (p, q)]
    entropy = -(p * p.log()).sum(1)
    divergence = (kl[0] + kl[1]) / 2
    found = jensen_shannon(logits, q, 0.3)
    torch.testing.assert_close(found, divergence + 0.3 * (1 - divergence / np.log(2)) * entropy)
    found = jensen_shannon(logits, q, 0.0)
    assert ((found > -1e-12) & (found <= np.log(2) + 1e-12)).all()


def test_the_entropy_narrows_a_distribution_of_coarse_labels() -> None:
    """Without it, the best answer to a uniform label is the uniform label."""
    label = torch.zeros(1, 20)
    label[0, 5:10] = 0.2
    widths = []
    for weight in (0.0, 0.6):
        logits = torch.zeros(1, 20).index_fill(1, torch.tensor([7]), 0.1).requires_grad_()
        optimizer = torch.optim.Adam([logits], 0.2)
        for _ in range(100):
            optimizer.zero_grad()
            jensen_shannon(logits, label, weight).sum().backward()
            optimizer.step()
        p = logits.detach().softmax(1)
        assert p[0, 5:10].sum() > 0.9
        widths.append(float(p.max()))
    assert widths[0] < 0.3 and widths[1] > 0.8


def test_the_loss_has_a_gradient_where_probabilities_vanish() -> None:
    logits = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    label = torch.tensor([[0.0, 0.0, 1.0]])
    loss = jensen_shannon(logits, label, 0.1)
    loss.sum().backward()
    assert torch.isfinite(logits.grad).all() and torch.isfinite(loss).all()
    assert torch.isfinite(cross_entropy(logits, label)).all()


@pytest.mark.parametrize("given_settings", [{"entropy": 0.1}, {"label_bins": 10}])
def test_settings_of_distributions_go_with_their_loss(given_settings: dict) -> None:
    LabelSettings.model_validate(given_settings)
    with pytest.raises(ValidationError, match="goes with `loss: jensen_shannon`"):
        LabelSettings.model_validate({**given_settings, "loss": "huber"})
