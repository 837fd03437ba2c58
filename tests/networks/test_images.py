"""Networks over stamps: symmetries, shifts, and the published architectures."""

from __future__ import annotations

import pytest
import torch

from zmill.networks.images import (
    GoogLeNet,
    Pasquet,
    PasquetBlock,
    ResidualNetwork,
    Sequential,
    shifted,
    turned,
)


def test_the_eight_symmetries_are_different_and_keep_the_pixels() -> None:
    stamp = torch.arange(9.0).reshape(1, 1, 3, 3)
    found = turned(stamp.expand(8, 1, 3, 3), torch.arange(8))
    assert torch.equal(found[0], stamp[0])
    assert len({tuple(one.flatten().tolist()) for one in found}) == 8
    assert (found.flatten(1).sort(1).values == torch.arange(9.0)).all()
    assert (found[:, 0, 1, 1] == 4).all()


def test_every_stamp_has_its_own_symmetry() -> None:
    stamps = torch.randn(50, 2, 5, 5)
    symmetry = torch.randint(0, 8, (50,))
    alone = torch.cat([turned(one[None], number[None]) for one, number in zip(stamps, symmetry, strict=True)])
    assert torch.equal(turned(stamps, symmetry), alone)


def test_shifts_are_of_whole_pixels_with_zeros_behind() -> None:
    stamps = torch.zeros(200, 1, 7, 7)
    stamps[:, :, 3, 3] = 1
    found = shifted(stamps, 2, torch.Generator().manual_seed(1))
    assert (found.flatten(1).sum(1) == 1).all()
    places = {divmod(int(one), 7) for one in found.flatten(1).argmax(1)}
    assert places == {(y, x) for y in range(1, 6) for x in range(1, 6)}
    edge = shifted(torch.ones(50, 1, 4, 4), 1, torch.Generator().manual_seed(2))
    assert sorted({int(one) for one in edge.flatten(1).sum(1)}) == [9, 12, 16]


def test_architectures_are_as_published() -> None:
    """Layers and sizes of the papers at 64 × 64 × 5 pixels."""
    block = PasquetBlock(64, 48, 64)
    assert block.outputs == 3 * 64 + 48
    assert block(torch.zeros(1, 64, 8, 8)).shape == (1, 240, 8, 8)
    pasquet = Pasquet(5, 64, 1, 180)
    assert [layer.in_features for layer in pasquet.dense if isinstance(layer, torch.nn.Linear)] == [
        (2 * 128 + 92) * 64 + 1,
        1096,
    ]
    assert sum(parameter.numel() for parameter in pasquet.parameters()) == pytest.approx(27e6, rel=0.1)
    sequential = Sequential(5, 64, 1, 180, 9)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in sequential.features) == 10
    inception = GoogLeNet(5, 64, 1, 180, 7)
    for network in (pasquet, sequential, inception):
        assert network(torch.randn(2, 5, 64, 64), torch.zeros(2, 1)).shape == (2, 180)


def test_stamps_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="layers: stamps of 32 × 32 pixels are too small for 9 convolutions"):
        Sequential(5, 32, 1, 180, 9)
    with pytest.raises(ValueError, match="too small"):
        Pasquet(5, 7, 1, 180)


@pytest.mark.parametrize("size", [11, 32, 64, 80])
def test_the_residual_network_takes_stamps_of_any_size(size: int) -> None:
    network = ResidualNetwork(3, size, 4, 21, 8, 1)
    assert network(torch.randn(2, 3, size, size), torch.randn(2, 4)).shape == (2, 21)
