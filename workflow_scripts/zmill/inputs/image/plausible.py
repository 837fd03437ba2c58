"""What files state of their stamps, and the plausibility of the first ones: shapes, units, order, values that are no fluxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.columns import Lists
from zmill.inputs.base import Inspection
from zmill.inputs.image.convert import frame
from zmill.inputs.image.settings import ImageSettings
from zmill.inputs.units import unit_of, wrong_error

ENOUGH = 100
"""Least number of stamps for a warning."""
LOOKED = 200
"""Stamps whose pixels are looked at."""
REPEATED = 0.01
"""A single value in a larger fraction of the pixels is not a measurement."""
LOWEST_SN, HIGHEST_SN = 0.05, 100_000.0
"""The median over stamps of the signal-to-noise ratio in the aperture lies between these."""
MASKED = 0.5
"""A larger fraction of masked pixels, over all stamps, may be a mask with the other meaning."""
SMOOTH, SMOOTHER = 0.5, 0.3
"""In the right order, the correlation of pixels one above the other is higher than in the other, by `SMOOTHER` where it is below `SMOOTH`."""
BACKGROUND = 3.0
"""Half of the stamps have outermost pixels of which the median is this many times their scatter, or more: the sky is not subtracted."""


def wrong_shapes(shapes: Mapping[str, tuple[int, ...]], section: ImageSettings) -> dict[str, str]:
    """Column -> why the shape that a file states for it contradicts the section.

    shapes : shape of the values in a row by column, (k,) of lists of a fixed length without a shape.
    """
    bands, size, _ = section.shape
    found: dict[str, str] = {}
    for key in ("flux", "ivar", "error", "mask"):
        names = section.columns(key)
        for name in names:
            if name not in shapes:
                continue
            shape = tuple(length for length in shapes[name] if length != 1) or (1,)
            cubes = {"bands_first": (bands, size, size), "bands_last": (size, size, bands)}
            cube = cubes[section.order] if len(names) == 1 else (size, size)
            allowed = [tuple(length for length in cube if length != 1), (int(np.prod(cube)),)]
            if key in ("ivar", "error") and len(names) == 1:
                allowed.append((bands,))
            if shape in allowed:
                continue
            stated = " x ".join(map(str, shapes[name]))
            other = "bands_last" if section.order == "bands_first" else "bands_first"
            if len(names) == 1 and bands > 1 and shape == cubes[other]:
                found[name] = (
                    f"(image.{key}) has the shape {stated}, but image.order is {section.order}: write order: {other}"
                )
            else:
                expected = " x ".join(map(str, cube))
                found[name] = (
                    f"(image.{key}) has the shape {stated}, but image.bands and image.size make it {expected}: correct them"
                )
    return found


def wrong_units(units: Mapping[str, str], section: ImageSettings) -> dict[str, str]:
    """Column -> why what the file states of it contradicts the section, and the setting to write. units : the file's own, by column."""
    found: dict[str, str] = {}
    fluxes = section.columns("flux")
    for name in fluxes:
        text = units.get(name, "")
        if "mag" in text.lower() and "maggy" not in text.lower() and "maggies" not in text.lower():
            found[name] = f"in {text!r}: image.flux holds linear fluxes and no magnitudes"
    stated: dict[str, str] = {}
    for name in fluxes:
        if unit := units.get(name):
            stated.setdefault(unit, name)
    if len(stated) > 1 and not isinstance(section.flux_unit, dict):
        one, other, *_ = stated
        first, second = unit_of(one), unit_of(other)
        if first is not None and second is not None and first != second:
            found[stated[other]] = f"in {other!r}, but {stated[one]} in {one!r}: give image.flux_unit for each band"
    if key := section.noise_key:
        names = section.columns(key)
        for name, flux in zip(names, fluxes if len(names) == len(fluxes) else fluxes * len(names), strict=False):
            if wrong := wrong_error("image", key, name, units.get(name, ""), units.get(flux, "")):
                found[name] = wrong
    return found


class ImageInspection(Inspection):
    """Collects ratios, fractions, frequent values and the smoothness of stamps."""

    def __init__(self, section: ImageSettings) -> None:
        self.section = section
        self.sn: list[NDArray[np.float32]] = []
        self.good: list[NDArray[np.float32]] = []
        self.values: dict[float, int] = {}
        self.pixels = 0
        self.looked = 0
        self.levels: list[NDArray[np.float64]] = []
        self.products = {"bands_first": np.zeros(2), "bands_last": np.zeros(2)}

    def add(
        self,
        batch: pa.RecordBatch,
        columns: Mapping[str, Any],
        faults: Mapping[str, Mapping[str, NDArray[np.bool_]]],
        good: NDArray[np.bool_],
    ) -> None:
        self.sn.append(columns["image_sn"][good])
        self.good.append(columns["image_good"][good])
        names = self.section.columns("flux")
        (bands, size, _), flux = self.section.shape, Lists.of(batch.column(names[0]))
        length = size * size * (bands if len(names) == 1 else 1)
        rows = np.flatnonzero(good & (flux.length == length))[: LOOKED - self.looked]
        self.looked += len(rows)
        stamps = flux.rows(rows, length).astype(np.float64)
        finite = stamps[np.isfinite(stamps) & ~np.isin(stamps, self.section.missing)]
        distinct, times = np.unique(finite, return_counts=True)
        self.pixels += len(finite)
        for number in np.flatnonzero(times > 1):
            self.values[float(distinct[number])] = self.values.get(float(distinct[number]), 0) + int(times[number])
        stamps = np.where(np.isfinite(stamps), stamps, 0)
        if len(names) > 1 or bands == 1:
            self._add_levels(stamps.reshape(len(rows), -1, size, size))
            return
        for order, sums in self.products.items():
            cube = stamps.reshape(-1, bands, size, size)
            if order == "bands_last":
                cube = stamps.reshape(-1, size, size, bands).transpose(0, 3, 1, 2)
            if order == self.section.order:
                self._add_levels(cube)
            cube = cube - cube.mean(axis=(2, 3), keepdims=True)
            # Every band of every stamp counts as much.
            cube = cube / np.maximum(np.sqrt((cube**2).mean(axis=(2, 3), keepdims=True)), np.finfo(float).tiny)
            above, below = cube[:, :, 1:], cube[:, :, :-1]
            sums += [(above * below).sum(), (above**2).sum() / 2 + (below**2).sum() / 2]

    def _add_levels(self, cube: NDArray[np.float64]) -> None:
        """Add the level of the outermost pixels, in units of their scatter; of the bands of a stamp (n, bands, size, size), the highest."""
        outer = cube[:, :, frame(self.section.size)]
        middle = np.median(outer, axis=2)
        scatter = 1.4826 * np.median(np.abs(outer - middle[:, :, None]), axis=2)
        self.levels.append((np.abs(middle) / np.maximum(scatter, np.finfo(float).tiny)).max(axis=1))

    def warnings(self, of: str) -> list[str]:
        sn, good = (np.concatenate(parts) if parts else np.empty(0) for parts in (self.sn, self.good))
        if len(sn) < ENOUGH:
            return []
        found = []
        value, times = max(self.values.items(), key=lambda item: item[1], default=(0.0, 0))
        if self.pixels and times > REPEATED * self.pixels and not self.section.mask and value != 0:
            found.append(
                f"image.flux: one value, {value:g}, stands in {times / self.pixels:.1%} of the pixels: if it means a missing flux, write "
                f"image: {{missing: [{value:g}]}}"
            )
        first, last = (
            float(self.products[order][0] / max(self.products[order][1], 1e-300))
            for order in ("bands_first", "bands_last")
        )
        given, other, write = (
            (first, last, "bands_last") if self.section.order == "bands_first" else (last, first, "bands_first")
        )
        if given < SMOOTH and other > given + SMOOTHER:
            found.append(
                f"pixels of a band, one above the other, have a correlation of {given:.2f}, and {other:.2f} if the bands stood in the other order: write "
                f"image: {{order: {write}}}, unless the stamps look right"
            )
        ratio = float(np.nanmedian(sn)) if np.isfinite(sn).any() else np.nan
        if not np.isnan(ratio) and not LOWEST_SN <= abs(ratio) <= HIGHEST_SN:
            key = self.section.noise_key or "flux"
            found.append(
                f"the median signal-to-noise ratio of the aperture {of} is {ratio:.3g}: check image.{key} (inverse variances or errors?)"
            )
        levels = np.concatenate(self.levels) if self.levels else np.empty(0)
        if len(levels) >= ENOUGH and float(np.median(levels)) > BACKGROUND:
            found.append(
                f"the outermost pixels of a stamp {of} have a median of {float(np.median(levels)):.3g} times their scatter: if the sky is not "
                "subtracted, signal-to-noise ratios and colors are those of the sky"
            )
        if (masked := 1 - float(good.mean())) > MASKED:
            found.append(
                f"{masked:.0%} of the pixels {of} are masked: check image.mask, mask_bits, mask_means and image.missing"
            )
        return found
