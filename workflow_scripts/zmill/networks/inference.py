"""Trained networks as they predict: in few passes, and residual ones in the narrowest numbers that the processor multiplies fast."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from zmill.kernels.simd import BYTE, Code, Compiled, Value, a_block_at_least
from zmill.networks.device import multiplies_bfloat16, multiplies_int8
from zmill.networks.network import FullyConnected, Linear, ResidualMLP, Waves

Range: TypeAlias = tuple[float, float]
"""Lowest and highest number that training rows bring to a layer, but for very few."""
BEYOND = 1e-5
"""Share of the numbers that lie below a range, and above it."""
Layer: TypeAlias = tuple[Tensor, Tensor]
"""Weights (outputs, inputs) and biases (outputs,)."""


class Applied:
    """A trained `ResidualMLP` member by member: only predicts.

    Where the ranges of a network of one member are known and the processor has instructions for it, in products of 8-bit
    integers behind a stem in float32. Else in bfloat16 where the device multiplies it: the stem, which sees the colors, is
    then given them twice, rounded and what the rounding left; phases stay in float32. Else in float32.

    Parameters
    ----------
    ranges : what `ranges_of` gives of training rows.
    """

    def __init__(self, network: ResidualMLP, ranges: Sequence[Range] | None = None) -> None:
        device = network.stem.weight.device
        if network.members > 1 or not multiplies_int8(device):
            ranges = None
        self.dtype = torch.bfloat16 if ranges is None and multiplies_bfloat16(device) else torch.float32
        self.waved, self.size = network.waved, network.head.weight.shape[-1]

        def layers(linear: nn.Module) -> list[Layer]:
            assert isinstance(linear, Linear)
            weight, bias = linear.weight.detach().to(self.dtype), linear.bias.detach().to(self.dtype)
            return [(w.T.contiguous(), b[0]) for w, b in zip(weight, bias, strict=True)]

        waves = [None] * network.members if network.waves is None else _wave_products(network.waves, self.dtype)
        mixed = 0 if network.waves is None else network.waves.bias.shape[-1]
        stem = layers(network.stem)
        if self.dtype == torch.bfloat16:
            stem = [(torch.cat([w[:, : w.shape[1] - mixed], w], 1), b) for w, b in stem]
        pairs = zip(network.first, network.second, strict=True)
        blocks = [(layers(a), layers(b)) for a, b in pairs]
        self.members = [
            (waves[m], stem[m], [(first[m], second[m]) for first, second in blocks], head)
            for m, head in enumerate(_widened(*layer) for layer in layers(network.head))
        ]
        self._whole = None if ranges is None else _Whole(*self.members[0][2:], ranges)

    def outputs(self, x: Tensor) -> Iterator[Tensor]:
        """(n, inputs) -> (n, outputs) of each member."""
        rounded = x.to(self.dtype)
        given = [x] if self.dtype == torch.float32 else [rounded, (x - rounded).to(self.dtype)]
        for waves, stem, blocks, head in self.members:
            inputs = list(given)
            if waves is not None:
                frequency, mix = waves
                phase = x[:, : self.waved] @ frequency
                both = torch.cat([phase.sin(), phase.cos_()], 1).to(self.dtype)
                inputs.append(rectified(both, *mix))
            h = rectified(torch.cat(inputs, 1) if len(inputs) > 1 else x, *stem)
            if self._whole is not None:
                yield self._whole(h)[:, : self.size]
                continue
            for first, second in blocks:
                h = h.add_(functional.linear(rectified(h, *first), *second))
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
    """A trained `FullyConnected` of one member: only predicts."""

    def __init__(self, network: FullyConnected) -> None:
        layers = [layer for layer in (*network.layers, network.head) if isinstance(layer, Linear)]
        *self._hidden, self._head = [
            (layer.weight[0].detach().T.contiguous(), layer.bias[0, 0].detach()) for layer in layers
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """(1, n, inputs) -> (1, n, outputs)."""
        for layer in self._hidden:
            x = rectified(x, *layer)
        return functional.linear(x, *self._head)


def rectified(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A layer with ReLU behind it; of float32 on a CPU in one pass of oneDNN."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return functional.linear(x, weight, bias).relu_()
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu", [], "")


class _Whole:
    """Blocks and head of a network in products of 8-bit integers, sums in float32.

    Each layer's inputs are counted in 255 steps of the range that training rows gave them and end at its ends, each output's
    weights in 127 steps to either side: the same for every row, whatever rows it is predicted with.
    """

    def __init__(self, blocks: list[tuple[Layer, Layer]], head: Layer, ranges: Sequence[Range]) -> None:
        layers = [*(layer for pair in blocks for layer in pair), head]
        *hidden, self._head = (_WholeLayer(*layer, *own) for layer, own in zip(layers, ranges, strict=True))
        self._pairs = list(zip(hidden[::2], hidden[1::2], strict=True))

    def __call__(self, h: Tensor) -> Tensor:
        """(n, width) behind the stem -> (n, outputs)."""
        for number, (first, second) in enumerate(self._pairs, 1):
            inner = first(first.counted(h), following=second)
            h = second(inner, to=h, following=self._head if number == len(self._pairs) else None)
        return self._head(h if self._pairs else self._head.counted(h))


class _WholeLayer:
    """A linear layer whose inputs, of a range, are integers of 8 bits without sign."""

    def __init__(self, weight: Tensor, bias: Tensor, low: float, high: float) -> None:
        low, high = min(low, 0.0), max(high, 1e-6)
        self.step = (high - low) / 255
        self.zero = round(-low / self.step)
        steps = weight.abs().amax(1).clamp_min(1e-9) / 127
        whole = torch.ops.onednn.qlinear_prepack((weight / steps[:, None]).round().to(torch.int8), None)
        self._given: tuple[Any, ...] = self.step, self.zero, whole, steps, torch.zeros(len(steps), dtype=torch.int32)
        self._bias, self._count = bias, _count()

    def counted(self, x: Tensor) -> Tensor:
        """(n, inputs) float32 -> uint8."""
        flat = a_block_at_least(x.contiguous().numpy().reshape(-1))
        out = np.empty(len(flat), np.uint8)
        self._count(flat, np.array([1 / self.step, self.zero + 0.5], np.float32), out, len(flat))
        return torch.from_numpy(out)[: x.numel()].view(x.shape)

    def __call__(self, counted: Tensor, *, to: Tensor | None = None, following: _WholeLayer | None = None) -> Tensor:
        """(n, inputs) uint8 -> (n, outputs) float32, added to `to`; uint8 where a following layer takes what is above zero."""
        form: tuple[Any, ...] = 1.0, 0, torch.float32
        then: tuple[Any, ...] = "none", [], ""
        if following is not None:
            form, then = (following.step, following.zero, torch.uint8), ("relu", [], "")
        product = torch.ops.onednn.qlinear_pointwise
        if to is None:
            return product(counted, *self._given, self._bias, *form, *then)
        return product.binary(counted, *self._given, to, self._bias, *form, 1.0, 0, "add", 1.0, *then)


@lru_cache(maxsize=1)
def _count() -> Compiled:
    """Float32 numbers to integers of 8 bits, with a factor and what is added before fractions are cut off."""
    code = Code(
        {"x": (np.float32, ("numbers",)), "line": (np.float32, (2,)), "out": (np.uint8, ("numbers",))}, ("numbers",)
    )

    def block(at: Value) -> None:
        steps = code.load(code.x, at) * code.spread(code.line, 0) + code.spread(code.line, 1)
        code.store(steps.max(0).min(255).to_int(), code.out, at, BYTE)

    code.each_block(code.numbers, block)
    return code.compiled()


@torch.inference_mode()
def ranges_of(network: ResidualMLP, x: Tensor) -> list[Range]:
    """Ranges of what the layers behind the stem are given, in their order, of inputs (members, n, inputs).

    They leave `BEYOND` of the numbers out to either side, which would have all others told apart less finely.
    """
    found: list[Range] = []

    def look(_: nn.Module, given: tuple[Tensor]) -> None:
        numbers = given[0].flatten()
        beyond = max(1, int(BEYOND * len(numbers)))
        lowest, highest = (numbers.topk(beyond, largest=largest).values[-1] for largest in (False, True))
        found.append((float(lowest), float(highest)))

    pairs = zip(network.first, network.second, strict=True)
    layers = [*(layer for pair in pairs for layer in pair), network.head]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    network(x)
    for hook in hooks:
        hook.remove()
    return found


def _widened(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A layer with outputs of zero more, up to a multiple of 16: a fifth less time on a CPU for 301."""
    more = -len(weight) % 16
    return functional.pad(weight, (0, 0, 0, more)), functional.pad(bias, (0, more))


def _wave_products(waves: Waves, dtype: torch.dtype) -> list[tuple[Tensor, tuple[Tensor, Tensor]]]:
    """Each member's waves as two plain products: inputs to phases, and sines and cosines to numbers, with its bias."""
    found = []
    for frequency, weight, bias in zip(
        waves.frequency.detach(), waves.weight.detach(), waves.bias.detach(), strict=True
    ):
        sines, cosines = weight.chunk(2, dim=1)
        mix = torch.cat([torch.block_diag(*sines), torch.block_diag(*cosines)])
        phases = torch.block_diag(*((2 * math.pi) * frequency[0]).unsqueeze(1))
        found.append((phases.contiguous(), (mix.T.contiguous().to(dtype), bias[0].to(dtype))))
    return found
