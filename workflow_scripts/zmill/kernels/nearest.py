"""Whether rows are far from all of a set of points in color space, in one compiled pass."""

from __future__ import annotations

from functools import lru_cache, reduce
from itertools import pairwise
from operator import add

import numpy as np
from numpy.typing import NDArray

from zmill.kernels.simd import BYTE, HUGE, Code, Compiled, Value, a_block_at_least

Floats = NDArray[np.float32]


def farther_than(
    threshold: float, mag: Floats, reference: int, fill: Floats, scale: Floats, centers: Floats
) -> NDArray[np.bool_]:
    """Whether the squared distance of each row to the nearest center is above a threshold.

    With x = (mag[reference], mag[0] − mag[1], mag[1] − mag[2], …) of a row and w = (x − fill) @ scale, where values of
    x − fill that are not finite are replaced by 0, the squared distance to center c is |w|² − 2 w·c + |c|².

    Parameters
    ----------
    threshold : squared distance in the space of w.
    mag : (n, bands) float32 magnitudes; NaN where unknown.
    reference : index of the reference band.
    fill : (bands,) float32.
    scale : (bands, k) float32.
    centers : (k + 1, centers) float32; rows 0…k−1: −2 c, row k: |c|².

    Returns
    -------
    (n,) bool.
    """
    rows = a_block_at_least(mag)
    far = np.empty(len(rows), np.bool_)
    run = _compiled(*scale.shape, reference)
    limit = np.array([threshold], np.float32)
    by_center = np.ascontiguousarray(centers.T)
    run(rows, fill, np.ascontiguousarray(scale), by_center, limit, far, len(rows), len(by_center))
    return far[: len(mag)]


@lru_cache(maxsize=8)
def _compiled(bands: int, size: int, reference: int) -> Compiled:
    code = Code(
        {
            "mag": (np.float32, ("rows", bands)),
            "fill": (np.float32, (bands,)),
            "scale": (np.float32, (bands, size)),
            "by_center": (np.float32, ("centers", size + 1)),
            "limit": (np.float32, (1,)),
            "far": (np.bool_, ("rows",)),
        },
        ("rows", "centers"),
    )

    def block(row: Value) -> None:
        mag = [code.of_rows(code.mag, row, bands, band) for band in range(bands)]
        values = [mag[reference], *(a - b for a, b in pairwise(mag))]
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
