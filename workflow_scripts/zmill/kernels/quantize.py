"""Floats as 8-bit integers, in one compiled pass."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from zmill.kernels.simd import BYTE, Code, Compiled, Value, a_block_at_least


def quantize(x: NDArray[np.float32], step: float, zero: float) -> NDArray[np.uint8]:
    """Numbers in steps, rounded to the nearest: ⌊x / step + zero + ½⌋, limited to 0…255; 0 for NaN.

    Parameters
    ----------
    x : float32 of any shape.
    step : width of a step; zero : the integer of x = 0.

    Returns
    -------
    uint8 of the same shape.
    """
    flat = a_block_at_least(x.reshape(-1))
    out = np.empty(len(flat), np.uint8)
    _compiled()(flat, np.array([1 / step, zero + 0.5], np.float32), out, len(flat))
    return out[: x.size].reshape(x.shape)


@lru_cache(maxsize=1)
def _compiled() -> Compiled:
    code = Code(
        {"x": (np.float32, ("numbers",)), "line": (np.float32, (2,)), "out": (np.uint8, ("numbers",))}, ("numbers",)
    )

    def block(at: Value) -> None:
        steps = code.load(code.x, at) * code.spread(code.line, 0) + code.spread(code.line, 1)
        code.store(steps.max(0).min(255).to_int(), code.out, at, BYTE)

    code.each_block(code.numbers, block)
    return code.compiled()
