"""Plausibility of the first spectra of a survey: values that are no fluxes, ratios that no spectrum has, spectra that are mostly masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.columns import Lists
from zmill.inputs.base import Inspection
from zmill.inputs.spectrum.settings import SpectrumSettings

ENOUGH = 100
"""Least number of spectra for a warning."""
REPEATED = 0.01
"""A single value in a larger fraction of the pixels that are not masked is not a measurement."""
LOWEST_SN, HIGHEST_SN = 0.05, 10_000.0
"""The median over spectra of their signal-to-noise ratio lies between these."""
MASKED = 0.5
"""A larger fraction of masked pixels, over all spectra, may be a mask with the other meaning."""


class SpectrumInspection(Inspection):
    """Collects the signal-to-noise ratios, the good fractions and the most frequent flux of spectra."""

    def __init__(self, section: SpectrumSettings) -> None:
        self.section = section
        self.sn: list[NDArray[np.float32]] = []
        self.good: list[NDArray[np.float32]] = []
        self.values: dict[float, int] = {}
        self.pixels = 0

    def add(
        self,
        batch: pa.RecordBatch,
        columns: Mapping[str, Any],
        faults: Mapping[str, Mapping[str, NDArray[np.bool_]]],
        good: NDArray[np.bool_],
    ) -> None:
        self.sn.append(columns["sn_median"][good])
        self.good.append(columns["good_fraction"][good])
        flux, noise = (
            Lists.of(batch.column(name)) for name in (self.section.flux[0], self._noise or self.section.flux[0])
        )
        for row in np.flatnonzero(good & (flux.length == noise.length)).tolist()[:ENOUGH]:
            values = flux.row(row)
            values = values[np.isfinite(values) & (noise.row(row) > 0 if self._noise else True)]
            distinct, times = np.unique(values, return_counts=True)
            self.pixels += len(values)
            for number in np.flatnonzero(times > 1):
                value = float(distinct[number])
                self.values[value] = self.values.get(value, 0) + int(times[number])

    @property
    def _noise(self) -> str | None:
        names = self.section.ivar or self.section.error
        return names[0] if names else None

    def warnings(self, of: str) -> list[str]:
        sn, good = (np.concatenate(parts) if parts else np.empty(0) for parts in (self.sn, self.good))
        if len(sn) < ENOUGH:
            return []
        found = []
        value, times = max(self.values.items(), key=lambda item: item[1], default=(0.0, 0))
        if self.pixels and times > REPEATED * self.pixels and not self.section.mask:
            found.append(
                f"spectrum.flux: one value, {value:g}, stands in {times / self.pixels:.1%} of the pixels: if it means a missing flux, "
                "give these pixels the inverse variance 0, or name a column of bad pixels under spectrum.mask"
            )
        ratio = float(np.nanmedian(sn)) if np.isfinite(sn).any() else np.nan
        if not np.isnan(ratio) and not LOWEST_SN <= abs(ratio) <= HIGHEST_SN:
            key = "ivar" if self.section.ivar else "error"
            found.append(
                f"the median signal-to-noise ratio of a pixel {of} is {ratio:.3g}: check spectrum.{key} (inverse variances or errors?)"
            )
        if (masked := 1 - float(good.mean())) > MASKED:
            found.append(
                f"{masked:.0%} of the pixels {of} are masked: check spectrum.mask, mask_bits and mask_means, and whether "
                "spectrum.grid is the range of the spectra"
            )
        return found
