"""Whether rows are far from all of a set of points, in one compiled pass."""

from __future__ import annotations

from functools import lru_cache, reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from zmill.kernels.simd import BYTE, HUGE, Code, Compiled, Value, a_block_at_least

Floats = NDArray[np.float32]


def farther_than(threshold: float, features: Floats, fill: Floats, scale: Floats, centers: Floats) -> NDArray[np.bool_]:
    """Whether the squared distance of each row to the nearest center is above a threshold.

    With x the features of a row and w = (x − fill) @ scale, where values of x − fill that are not finite are replaced by
    0, the squared distance to center c is |w|² − 2 w·c + |c|².

    Parameters
    ----------
    threshold : squared distance in the space of w.
    features : (n, features) float32; NaN where unknown.
    fill : (features,) float32.
    scale : (features, k) float32.
    centers : (k + 1, centers) float32; rows 0…k−1: −2 c, row k: |c|².

    Returns
    -------
    (n,) bool.
    """
    rows = a_block_at_least(features)
    far = np.empty(len(rows), np.bool_)
    run = _compiled(*scale.shape)
    limit = np.array([threshold], np.float32)
    by_center = np.ascontiguousarray(centers.T)
    run(rows, fill, np.ascontiguousarray(scale), by_center, limit, far, len(rows), len(by_center))
    return far[: len(features)]


@lru_cache(maxsize=8)
def _compiled(width: int, size: int) -> Compiled:
    code = Code(
        {
            "features": (np.float32, ("rows", width)),
            "fill": (np.float32, (width,)),
            "scale": (np.float32, (width, size)),
            "by_center": (np.float32, ("centers", size + 1)),
            "limit": (np.float32, (1,)),
            "far": (np.bool_, ("rows",)),
        },
        ("rows", "centers"),
    )

    def block(row: Value) -> None:
        values = [code.of_rows(code.features, row, width, number) for number in range(width)]
        known = [
            value.finite().where(value - code.spread(code.fill, number), code.constant(0))
            for number, value in enumerate(values)
        ]
        white = [
            reduce(add, (value * code.spread(code.scale, number * size + k) for number, value in enumerate(known)))
            for k in range(size)
        ]

        def nearer(center: Value, nearest: Value) -> tuple[Value]:
            start = center * (size + 1)
            distance = code.spread(code.by_center, start + size)
            for k, value in enumerate(white):
                distance = distance + value * code.spread(code.by_center, start + k)
            return (distance.min(nearest),)

        (nearest,) = code.loop(0, code.centers, 1, nearer, code.constant(HUGE))
        far = reduce(add, (value * value for value in white)) + nearest > code.spread(code.limit, 0)
        code.store(far.where(1, code.lanes() * 0), code.far, row, BYTE)

    code.each_block(code.rows, block)
    return code.compiled()
