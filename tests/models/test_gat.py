"""Graph attention: the published formula, a batch that is the sum of its graphs, bands anonymous unless embedded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from models import contract
from zmill.config import ConfigError, ModelSettings
from zmill.models import gat
from zmill.models.registry import check_models

QUICK = {"epochs": 8, "lr": 5e-3, "hidden": 8, "heads": 2, "embedding": 2}


def test_attention_is_the_published_formula() -> None:
    """e_ij = LeakyReLU_0.2(a [W h_i | W h_j]), softmax over neighbours, sum of the attended."""
    torch.manual_seed(1)
    network = gat.GraphAttention(5, 3, 1, 0).eval()
    x = torch.randn(1, 5)
    conv = network.first
    h = conv.lin(x.reshape(-1, 1))
    a_source, a_target = conv.att_src[0, 0], conv.att_dst[0, 0]
    e = functional.leaky_relu((h @ a_target)[:, None] + (h @ a_source)[None, :], 0.2)
    expected = e.softmax(1) @ h + conv.bias
    torch.testing.assert_close(conv(x.reshape(-1, 1), network.edges), expected)


@pytest.mark.parametrize("embedding", [0, 3])
def test_a_batch_answers_as_its_graphs_do_one_by_one(embedding: int) -> None:
    torch.manual_seed(1)
    network = gat.GraphAttention(6, 4, 2, embedding).eval()
    x = torch.randn(1, 40, 6)
    one_by_one = torch.cat([network(x[:, row : row + 1]) for row in range(40)], 1)
    torch.testing.assert_close(network(x), one_by_one)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), one_by_one)


def test_bands_are_anonymous_unless_they_are_embedded() -> None:
    """A complete graph with one number per node and a mean over nodes cannot tell u from y."""
    torch.manual_seed(1)
    x = torch.randn(1, 20, 6)
    plain, embedded = (gat.GraphAttention(6, 4, 2, size).eval() for size in (0, 3))
    torch.testing.assert_close(plain(x), plain(x.flip(2)))
    assert (embedded(x) - embedded(x.flip(2))).abs().max() > 1e-3


def test_learns_the_toy_relation() -> None:
    contract.is_accurate("gat", QUICK | {"epochs": 12}, 0.1)


def test_saved_and_repeatable(tmp_path: Path) -> None:
    contract.is_saved_and_repeatable("gat", QUICK, tmp_path)


def test_scales_by_training_rows_alone() -> None:
    contract.scales_by_training_rows_alone("gat", QUICK | {"epochs": 2}, ("offset", "scale", "fill"))


def test_rows_with_missing_bands() -> None:
    contract.predicts_rows_with_missing_bands("gat", QUICK)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected at least 1"):
        check_models({"gat": ModelSettings.model_validate({"heads": 0})})
