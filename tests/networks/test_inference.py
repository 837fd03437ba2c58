"""A network that predicts in narrower numbers says what it was trained to say."""

from __future__ import annotations

import pytest
import torch

from zmill.networks.device import multiplies_int8
from zmill.networks.inference import Applied, AppliedLayers, ranges_of
from zmill.networks.network import FullyConnected, Residual, ResidualMLP


def network(members: int, **shape: int) -> ResidualMLP:
    """One with weights of its own in every layer."""
    torch.manual_seed(1)
    found = ResidualMLP(members, 10, 4, 50, Residual.model_validate({"width": 32, "embedding": 3, **shape})).eval()
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return found


@pytest.mark.parametrize("frequencies", [0, 6])
def test_applied_equals_the_network(frequencies: int) -> None:
    trained = network(3, blocks=2, frequencies=frequencies)
    x = torch.randn(20, 10)
    expected = trained(x.expand(3, 20, 10)).softmax(-1).mean(0)
    torch.testing.assert_close(Applied(trained).probability(x), expected, rtol=0.15, atol=2e-3)


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("rows", [1, 17, 2048])
def test_layers_in_one_pass_are_the_network(rows: int, onednn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not onednn:
        monkeypatch.setattr("zmill.networks.onednn.fuses_relu", lambda: False)
    torch.manual_seed(2)
    trained = FullyConnected(1, 6, (32, 16), 1)
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, rows, 6)
    with torch.inference_mode():
        torch.testing.assert_close(AppliedLayers(trained)(x), trained(x), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no products of whole numbers here")
@pytest.mark.parametrize("blocks", [0, 1, 2])
@pytest.mark.parametrize("frequencies", [0, 6])
def test_integer_products_equal_the_network_and_do_not_depend_on_other_rows(
    blocks: int, frequencies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for check in ("multiplies_int8", "multiplies_integers"):
        monkeypatch.setattr(f"zmill.networks.inference.{check}", lambda *device: True)
    trained = network(1, blocks=blocks, frequencies=frequencies)
    x = torch.randn(300, 10)
    with torch.inference_mode():
        expected = trained(x[None])[0].softmax(-1)
        applied = Applied(trained, ranges_of(trained, x[None]))
        found = applied.probability(x)
        divergence = (expected * (expected / found).log()).sum(1)
        assert 0 < float(divergence.mean()) < 1e-3
        for row in (0, 17, 299):
            torch.testing.assert_close(applied.probability(x[row : row + 1])[0], found[row], rtol=1e-4, atol=1e-6)
        # far outside of what training rows brought: at the ends of the ranges, and a density all the same
        assert torch.isfinite(applied.log_probability(100 * x)).all()


def test_ranges_are_those_of_what_each_layer_is_given() -> None:
    trained = network(1, blocks=1, frequencies=0)
    x = torch.randn(50, 10)
    h = trained.stem(x[None]).relu()
    inner = trained.first[0](h).relu()
    last = (h + trained.second[0](inner)).relu()
    expected = torch.stack([torch.stack(t.detach().aminmax()) for t in (h, inner, last)])
    torch.testing.assert_close(torch.tensor(ranges_of(trained, x[None])), expected)


def test_a_gpu_does_not_use_integer_products() -> None:
    assert not multiplies_int8(torch.device("cuda"))
