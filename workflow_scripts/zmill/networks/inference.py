"""Inference of trained networks, in few operations; residual networks use the narrowest number format that the device multiplies fast."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from zmill.networks.device import multiplies_bfloat16, multiplies_int8
from zmill.networks.network import FullyConnected, Linear, PeriodicEmbedding, ResidualMLP
from zmill.networks.onednn import QuantizedLayer, linear_relu, multiplies_integers

Range: TypeAlias = tuple[float, float]
"""Lowest and highest input of a layer over training rows, without the most extreme values."""
BEYOND = 1e-5
"""Fraction of the inputs below a range, and above it."""
Layer: TypeAlias = tuple[Tensor, Tensor]
"""Weights (outputs, inputs) and biases (outputs,)."""


class Applied:
    """A trained `ResidualMLP` for inference, member by member.

    A network of one member with known ranges uses 8-bit integer products after a float32 stem, if the processor has
    instructions for them. Otherwise it uses bfloat16 if the device supports it: the stem then receives its inputs twice, as
    rounded values and as rounding errors, and phases stay in float32. Otherwise it uses float32.

    Parameters
    ----------
    ranges : ranges of the layers on training rows (`ranges_of`).
    """

    def __init__(self, network: ResidualMLP, ranges: Sequence[Range] | None = None) -> None:
        device = network.stem.weight.device
        if network.members > 1 or not (multiplies_int8(device) and multiplies_integers()):
            ranges = None
        self.dtype = torch.bfloat16 if ranges is None and multiplies_bfloat16(device) else torch.float32
        self.embedded, self.size = network.embedded, network.head.weight.shape[-1]

        def layers(linear: nn.Module) -> list[Layer]:
            assert isinstance(linear, Linear)
            weight, bias = linear.weight.detach().to(self.dtype), linear.bias.detach().to(self.dtype)
            return [(w.T.contiguous(), b[0]) for w, b in zip(weight, bias, strict=True)]

        embeddings = (
            [None] * network.members
            if network.embedding is None
            else _embedding_products(network.embedding, self.dtype)
        )
        mixed = 0 if network.embedding is None else network.embedding.bias.shape[-1]
        stem = layers(network.stem)
        if self.dtype == torch.bfloat16:
            stem = [(torch.cat([w[:, : w.shape[1] - mixed], w], 1), b) for w, b in stem]
        pairs = zip(network.first, network.second, strict=True)
        blocks = [(layers(a), layers(b)) for a, b in pairs]
        self.members = [
            (embeddings[m], stem[m], [(first[m], second[m]) for first, second in blocks], head)
            for m, head in enumerate(_widened(*layer) for layer in layers(network.head))
        ]
        self._quantized = None if ranges is None else _Quantized(*self.members[0][2:], ranges)

    def outputs(self, x: Tensor) -> Iterator[Tensor]:
        """(n, inputs) -> (n, outputs) of each member."""
        rounded = x.to(self.dtype)
        given = [x] if self.dtype == torch.float32 else [rounded, (x - rounded).to(self.dtype)]
        for embedding, stem, blocks, head in self.members:
            inputs = list(given)
            if embedding is not None:
                frequency, mix = embedding
                phase = x[:, : self.embedded] @ frequency
                both = torch.cat([phase.sin(), phase.cos_()], 1).to(self.dtype)
                inputs.append(linear_relu(both, *mix))
            h = linear_relu(torch.cat(inputs, 1) if len(inputs) > 1 else x, *stem)
            if self._quantized is not None:
                yield self._quantized(h)[:, : self.size]
                continue
            for first, second in blocks:
                h = h.add_(functional.linear(linear_relu(h, *first), *second))
            yield functional.linear(h.relu_(), *head)[:, : self.size]

    def log_probability(self, x: Tensor) -> Tensor:
        """(n, inputs) -> (n, outputs) float32: logarithms of `probability`, up to a constant for each row."""
        return next(self.outputs(x)).float() if len(self.members) == 1 else self.probability(x).log_()

    def probability(self, x: Tensor) -> Tensor:
        """(n, inputs) -> (n, outputs) float32: softmax of the outputs, averaged over the members."""
        total = None
        for outputs in self.outputs(x):
            p = outputs.float().softmax(-1)
            total = p if total is None else total.add_(p)
        assert total is not None
        return total if len(self.members) == 1 else total.div_(len(self.members))


class AppliedLayers:
    """A trained `FullyConnected` of one member, for inference."""

    def __init__(self, network: FullyConnected) -> None:
        layers = [layer for layer in (*network.layers, network.head) if isinstance(layer, Linear)]
        *self._hidden, self._head = [
            (layer.weight[0].detach().T.contiguous(), layer.bias[0, 0].detach()) for layer in layers
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """(1, n, inputs) -> (1, n, outputs)."""
        for layer in self._hidden:
            x = linear_relu(x, *layer)
        return functional.linear(x, *self._head)


class _Quantized:
    """Blocks and head of a network in 8-bit integer products, with sums in float32.

    The range of the inputs of each layer is that of training rows. It is fixed, so that the result of a row does not depend on
    the other rows of its batch.
    """

    def __init__(self, blocks: list[tuple[Layer, Layer]], head: Layer, ranges: Sequence[Range]) -> None:
        layers = [*(layer for pair in blocks for layer in pair), head]
        *hidden, self._head = (QuantizedLayer(*layer, *own) for layer, own in zip(layers, ranges, strict=True))
        self._pairs = list(zip(hidden[::2], hidden[1::2], strict=True))

    def __call__(self, h: Tensor) -> Tensor:
        """(n, width) outputs of the stem -> (n, outputs)."""
        for number, (first, second) in enumerate(self._pairs, 1):
            inner = first(first.quantized(h), following=second)
            h = second(inner, to=h, following=self._head if number == len(self._pairs) else None)
        return self._head(h if self._pairs else self._head.quantized(h))


@torch.inference_mode()
def ranges_of(network: ResidualMLP, x: Tensor) -> list[Range]:
    """Ranges of the inputs of the layers after the stem, in their order, for network inputs (members, n, inputs).

    A fraction `BEYOND` of the values is left out on either side, because extreme values would make the quantization coarser.
    """
    found: list[Range] = []

    def record(_: nn.Module, given: tuple[Tensor]) -> None:
        numbers = given[0].flatten()
        beyond = max(1, int(BEYOND * len(numbers)))
        lowest, highest = (numbers.topk(beyond, largest=largest).values[-1] for largest in (False, True))
        found.append((float(lowest), float(highest)))

    pairs = zip(network.first, network.second, strict=True)
    layers = [*(layer for pair in pairs for layer in pair), network.head]
    hooks = [layer.register_forward_pre_hook(record) for layer in layers]
    network(x)
    for hook in hooks:
        hook.remove()
    return found


def _widened(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A layer padded with zero outputs to a multiple of 16, which takes a fifth less time on a CPU for 301 outputs."""
    more = -len(weight) % 16
    return functional.pad(weight, (0, 0, 0, more)), functional.pad(bias, (0, more))


def _embedding_products(embedding: PeriodicEmbedding, dtype: torch.dtype) -> list[tuple[Tensor, tuple[Tensor, Tensor]]]:
    """The periodic embedding of each member as two matrix products: inputs to phases, and sines and cosines to outputs, with bias."""
    found = []
    for frequency, weight, bias in zip(
        embedding.frequency.detach(), embedding.weight.detach(), embedding.bias.detach(), strict=True
    ):
        sines, cosines = weight.chunk(2, dim=1)
        mix = torch.cat([torch.block_diag(*sines), torch.block_diag(*cosines)])
        phases = torch.block_diag(*((2 * math.pi) * frequency[0]).unsqueeze(1))
        found.append((phases.contiguous(), (mix.T.contiguous().to(dtype), bias[0].to(dtype))))
    return found
