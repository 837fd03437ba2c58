"""Mean-color imputation: missing bands are filled from neighboring bands (Deng et al., arXiv 2402.10337).

d_b = mean(m_b - m_{b+1}) over rows in which both bands are measured. A missing m_b is m_{b-1} - d_{b-1} from the blue
side or m_{b+1} + d_b from the red side, the mean of the two where both exist; runs of missing bands are filled
step by step from their ends. A filled value has no new information on the redshift, so the `imputed` mask marks it for the models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from zmill.inputs.photometry.batch import FloatArray, MaskArray


@dataclass(frozen=True)
class MeanColors:
    """Mean color m_b - m_{b+1} of each pair of neighboring bands.

    bands : from blue to red.
    color : (bands - 1) magnitudes; NaN where the two bands were never measured together.
    pairs : (bands - 1) numbers of rows that each mean is computed from.
    """

    bands: tuple[str, ...]
    color: tuple[float, ...]
    pairs: tuple[int, ...]

    @property
    def names(self) -> list[str]:
        """`u-g`, `g-r`…"""
        return [f"{blue}-{red}" for blue, red in pairwise(self.bands)]

    @property
    def unknown(self) -> list[str]:
        """The pairs of bands that were never measured together; nothing is filled across them."""
        return [name for name, pairs in zip(self.names, self.pairs, strict=True) if pairs == 0]

    def to_json(self) -> dict[str, Any]:
        """The content of `imputation.json`; an unknown color is null."""
        colors = [
            {"pair": name, "mean": color if pairs else None, "rows": pairs}
            for name, color, pairs in zip(self.names, self.color, self.pairs, strict=True)
        ]
        return {"method": "mean_color", "bands": list(self.bands), "colors": colors}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> MeanColors:
        """The inverse of `to_json`."""
        colors = content["colors"]
        return cls(
            bands=tuple(content["bands"]),
            color=tuple(np.nan if entry["mean"] is None else float(entry["mean"]) for entry in colors),
            pairs=tuple(int(entry["rows"]) for entry in colors),
        )


class ColorSums:
    """Sums for the mean colors, added batch by batch; the order of rows and batches does not matter."""

    def __init__(self, bands: Sequence[str]) -> None:
        self.bands = tuple(bands)
        self._sum = np.zeros(len(self.bands) - 1, np.float64)
        self._pairs = np.zeros(len(self.bands) - 1, np.int64)

    def add(self, mag: Sequence[FloatArray]) -> None:
        """Add rows to the sums.

        Parameters
        ----------
        mag : one (n,) float32 array of magnitudes per band, NaN where the band is not measured.
        """
        for pair, (blue, red) in enumerate(pairwise(mag)):
            color = blue.astype(np.float64) - red
            both = ~np.isnan(color)
            self._sum[pair] += color[both].sum()
            self._pairs[pair] += np.count_nonzero(both)

    def colors(self) -> MeanColors:
        """The mean colors of all rows added so far."""
        mean = np.divide(self._sum, self._pairs, out=np.full(len(self._sum), np.nan), where=self._pairs > 0)
        return MeanColors(self.bands, tuple(mean.tolist()), tuple(self._pairs.tolist()))


def fill(mag: Sequence[FloatArray], colors: MeanColors) -> tuple[list[FloatArray], MaskArray]:
    """Fill every band without a magnitude, undetected or unobserved, from its neighbors.

    Each step fills the missing bands that have a neighbor, measured or filled in an earlier step, with a known mean color
    to it. A band stays NaN where no chain of known colors leads to a measured band; a row without any band stays empty.

    Parameters
    ----------
    mag : one (n,) float32 array per band of `colors.bands`; NaN where missing. The arrays are not changed.
    colors : mean colors of the training rows.

    Returns
    -------
    One (n,) float32 array per band, the input array itself where nothing was filled, and the (n,) int32 mask of the filled
    bands (bit = band number).
    """
    filled = list(mag)
    imputed = np.zeros(len(mag[0]), np.int32)
    missing = {band: rows for band, values in enumerate(mag) if len(rows := np.flatnonzero(np.isnan(values)))}
    while missing:
        estimates = {band: _from_neighbors(filled, band, rows, colors.color) for band, rows in missing.items()}
        missing, before = {}, missing
        progress = False
        for band, estimate in estimates.items():
            rows = before[band]
            found = ~np.isnan(estimate)
            if found.any():
                progress = True
                if filled[band] is mag[band]:
                    filled[band] = mag[band].copy()
                filled[band][rows[found]] = estimate[found]
                imputed[rows[found]] |= np.int32(1 << band)
            if not found.all():
                missing[band] = rows[~found]
        if not progress:
            break
    return filled, imputed


def _from_neighbors(mag: Sequence[FloatArray], band: int, rows: np.ndarray, color: Sequence[float]) -> FloatArray:
    """Estimates of one band in some rows: from the blue side, the red side or the mean of the two; else NaN."""
    sides = []
    if band > 0:
        sides.append(mag[band - 1][rows] - np.float32(color[band - 1]))
    if band + 1 < len(mag):
        sides.append(mag[band + 1][rows] + np.float32(color[band]))
    if not sides:
        return np.full(len(rows), np.nan, np.float32)
    if len(sides) == 1:
        return sides[0]
    blue, red = sides
    mean = (blue + red) / np.float32(2)
    return np.where(np.isnan(blue), red, np.where(np.isnan(red), blue, mean))
