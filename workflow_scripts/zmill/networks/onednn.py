"""Operators of oneDNN for which torch has no public function: a linear layer with ReLU in one pass, and 8-bit integer products.

torch may change them in any version. Therefore each is run once on a small layer before it is used. If it is absent, takes other
arguments or gives other numbers, a warning in the log says so, and layers are computed with public functions in floats.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zmill.kernels.quantize import quantize

log = logging.getLogger(__name__)


def linear_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer followed by ReLU; for float32 on a CPU one operation of oneDNN where it works (`fuses_relu`)."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or not fuses_relu():
        return functional.linear(x, weight, bias).relu_()
    return _fused_linear_relu(x, weight, bias)


class QuantizedLayer:
    """A linear layer whose inputs, in a given range, are quantized to unsigned 8-bit integers.

    The inputs are quantized in 255 steps over the range and clipped to it; the weights of each output in 127 steps to either
    side. Results are right only where `multiplies_integers`.

    Parameters
    ----------
    weight : (outputs, inputs) float32; bias : (outputs,) float32.
    low, high : the range of the inputs.
    """

    def __init__(self, weight: Tensor, bias: Tensor, low: float, high: float) -> None:
        low, high = min(low, 0.0), max(high, 1e-6)
        self.step = (high - low) / 255
        self.zero = round(-low / self.step)
        steps = weight.abs().amax(1).clamp_min(1e-9) / 127
        packed = torch.ops.onednn.qlinear_prepack((weight / steps[:, None]).round().to(torch.int8), None)
        self._given: tuple[Any, ...] = self.step, self.zero, packed, steps, torch.zeros(len(steps), dtype=torch.int32)
        self._bias = bias

    def quantized(self, x: Tensor) -> Tensor:
        """(n, inputs) float32 -> uint8."""
        return torch.from_numpy(quantize(x.numpy(), self.step, self.zero))

    def __call__(self, inputs: Tensor, *, to: Tensor | None = None, following: QuantizedLayer | None = None) -> Tensor:
        """(n, inputs) uint8 -> (n, outputs) float32, added to `to`; uint8 after ReLU if a layer follows."""
        form: tuple[Any, ...] = 1.0, 0, torch.float32
        then: tuple[Any, ...] = "none", [], ""
        if following is not None:
            form, then = (following.step, following.zero, torch.uint8), ("relu", [], "")
        product = torch.ops.onednn.qlinear_pointwise
        if to is None:
            return product(inputs, *self._given, self._bias, *form, *then)
        return product.binary(inputs, *self._given, to, self._bias, *form, 1.0, 0, "add", 1.0, *then)


def _fused_linear_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu", [], "")


@lru_cache(maxsize=1)
def fuses_relu() -> bool:
    """Whether a linear layer and ReLU are one operation here."""
    return torch.backends.mkldnn.is_available() and _works("a linear layer with ReLU (mkldnn)", _error_of_relu)


@lru_cache(maxsize=1)
def multiplies_integers() -> bool:
    """Whether torch has right products of 8-bit integers here.

    To be asked on a processor with instructions for them. On another one, oneDNN adds pairs of products in 16 bits, which overflow.
    """
    return torch.backends.mkldnn.is_available() and _works("products of 8-bit integers (onednn)", _error_of_integers)


@torch.inference_mode()
def _works(name: str, error: Callable[[], float]) -> bool:
    """Whether an operator runs and its error is below 0.05; otherwise a warning is logged."""
    try:
        found = error()
    except (AttributeError, RuntimeError, TypeError) as problem:
        cause = " ".join(str(problem).split())[:200]
    else:
        if found < 0.05:
            return True
        cause = f"results differ by {found:.2g} from those in float32"
    log.warning(
        "torch %s: its operator for %s does not work (%s); networks are computed with torch's public functions in "
        "floats, which takes longer",
        torch.__version__,
        name,
        cause,
    )
    return False


def _example() -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (8, 32), weights (16, 32) and biases (16,) whose products are of order 1."""
    numbers = torch.arange(8 * 32 + 16 * 32 + 16, dtype=torch.float32).mul_(0.7).sin_()
    x, weight, bias = numbers.split([8 * 32, 16 * 32, 16])
    return x.reshape(8, 32), weight.reshape(16, 32) / 4, bias.clone()


def _error_of_relu() -> float:
    x, weight, bias = _example()
    return float((_fused_linear_relu(x, weight, bias) - functional.linear(x, weight, bias).relu()).abs().max())


def _error_of_integers() -> float:
    """The largest error of the three forms of a quantized layer, whose own error from quantization is about 0.02."""
    x, weight, bias = _example()
    exact, other = functional.linear(x, weight, bias), torch.linspace(-1, 1, 8 * 16).reshape(8, 16)
    layer = QuantizedLayer(weight, bias, -1.0, 1.0)
    behind = QuantizedLayer(torch.eye(16), torch.zeros(16), 0.0, float((exact + other.abs()).max()))
    given = layer.quantized(x)
    pairs = [
        (layer(given), exact),
        (layer(given, to=other.clone()), exact + other),
        (behind(layer(given, following=behind)), exact.relu()),
        (behind(layer(given, to=other.clone(), following=behind)), (exact + other).relu()),
    ]
    return max(float((found - expected).abs().max()) for found, expected in pairs)
