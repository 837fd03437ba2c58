"""Figures from arrays. A figure has no title, because the page has a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter
from numpy.typing import NDArray

from zmill.report.binned import Trend
from zmill.report.style import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE

Floats = NDArray[np.float64]
LINES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PURPLE, ":"))
"""Color and dash of the first, second … curve, which differ without color, too."""
COUNTS = ListedColormap(colormaps["viridis"](np.linspace(0.25, 0.97, 256)), "counts")
"""viridis without its ends, which are hard to see on a dark or a white page."""
WHOLE = FuncFormatter(lambda value, _: f"{value:,.0f}")
"""Ticks of a logarithmic axis of counts as plain numbers."""
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
"""Ticks of any logarithmic axis."""


class Stamp(NamedTuple):
    """A stamp to draw: (N, N, 3) colors between 0 and 1, the spectroscopic redshift and `z_mode`, and redshifts with the density, if there is one."""

    name: str
    colors: Floats
    z: float
    z_mode: float
    density: tuple[Floats, Floats] | None


def redshift_plane(z_spec: Floats, z_phot: Floats, z_min: float, z_max: float, outlier: float = 0.15) -> Figure:
    """Counts in the plane of spectroscopic and predicted redshift, with the lines beyond which a row is an outlier."""
    figure = Figure(figsize=(4.8, 4.1))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.12, 0.125, 0.7, 0.7 * 4.8 / 4.1))
    edges = np.linspace(z_min, z_max, 121 if len(z_spec) > 3000 else 61)
    counts, _, _ = np.histogram2d(z_spec, np.clip(z_phot, z_min, z_max), bins=(edges, edges))
    shown = np.ma.masked_less(counts.T, 1)
    mesh = axes.pcolormesh(edges, edges, shown, norm=LogNorm(1, max(counts.max(), 2)), cmap=COUNTS, rasterized=True)
    z = np.array([z_min, z_max])
    axes.plot(z, z, color=INK, linewidth=0.9)
    for sign in (-1, 1):
        axes.plot(z, z + sign * outlier * (1 + z), color=MUTED, linewidth=0.9, linestyle="--")
    axes.set(xlim=(z_min, z_max), ylim=(z_min, z_max), xlabel="spectroscopic redshift", ylabel="predicted redshift")
    colorbar_axes = figure.add_axes((0.84, 0.125, 0.025, 0.7 * 4.8 / 4.1))
    bar = figure.colorbar(mesh, cax=colorbar_axes, label="objects in a cell", format=WHOLE)
    bar.minorticks_off()
    return figure


def error_trend(found: Trend, label: str) -> Figure:
    """Bias, scatter and outliers of Δz along a quantity, in panels one above the other, with their intervals."""
    figure = Figure(figsize=(4.8, 5.0))
    panels: Sequence[Axes] = figure.subplots(3, 1, sharex=True)
    names = {"bias": "bias", "sigma_mad": "scatter σ_MAD", "eta_015": "outliers"}
    for axes, (key, name), color in zip(panels, names.items(), (BLUE, GREEN, ORANGE), strict=True):
        axes.vlines(found.center, found.low[key], found.high[key], color=color, linewidth=1.2)
        axes.plot(found.center, found.values[key], color=color, marker="o", markersize=3.5)
        axes.set_ylabel(name)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    panels[0].axhline(0, color=INK, linewidth=0.9)
    panels[1].set_ylim(bottom=0)
    panels[2].set_ylim(bottom=0)
    panels[2].yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    panels[2].set_xlabel(label)
    return figure


def error_histogram(dz: Floats, half_width: float) -> Figure:
    """Distribution of Δz; values beyond the edges are counted in the outermost bins."""
    figure = Figure()
    axes = figure.subplots()
    edges = np.linspace(-half_width, half_width, 61)
    axes.hist(np.clip(dz, edges[0], edges[-1]), bins=list(edges), density=True, color=BLUE, alpha=0.75)
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set(xlabel="Δz = (z_phot − z_spec) / (1 + z_spec)", ylabel="density", xlim=(edges[0], edges[-1]))
    return figure


def pit_histogram(pits: dict[str, Floats], bins: int = 20) -> Figure:
    """Histogram of the probability integral transform: flat, within the band, where PDFs are calibrated."""
    return pit_counts({name: np.histogram(pit, bins, (0, 1))[0].astype(np.float64) for name, pit in pits.items()})


def pit_counts(counts: dict[str, Floats]) -> Figure:
    """The same from the numbers of rows in bins of equal width."""
    figure = Figure()
    axes = figure.subplots()
    bins = len(next(iter(counts.values())))
    n = min(count.sum() for count in counts.values())
    spread = 2 * np.sqrt((bins - 1) / max(n, 1))
    axes.axhspan(1 - spread, 1 + spread, color=MUTED, alpha=0.2, linewidth=0)
    axes.axhline(1, color=INK, linewidth=0.9)
    for (name, count), (color, dash) in zip(counts.items(), LINES, strict=False):
        density = bins * count / max(count.sum(), 1)
        axes.stairs(density, np.linspace(0, 1, bins + 1), color=color, linestyle=dash, label=name, linewidth=1.6)
    axes.set(xlabel="PIT: probability below the spectroscopic redshift", ylabel="density", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    if len(counts) > 1:
        axes.legend()
    return figure


def pit_quantiles(pits: dict[str, Floats]) -> Figure:
    """QQ plot of the probability integral transform, above it the distance from the diagonal."""
    figure = Figure(figsize=(4.8, 4.3))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 3))
    levels = np.linspace(0, 1, 201)
    lower.plot([0, 1], [0, 1], color=INK, linewidth=0.9)
    upper.axhline(0, color=INK, linewidth=0.9)
    for (name, pit), (color, dash) in zip(pits.items(), LINES, strict=False):
        quantile = np.quantile(pit, levels)
        lower.plot(levels, quantile, color=color, linestyle=dash, label=name)
        upper.plot(levels, quantile - levels, color=color, linestyle=dash)
    lower.set(xlabel="quantile expected", ylabel="quantile found", xlim=(0, 1), ylim=(0, 1))
    upper.set_ylabel("difference")
    if len(pits) > 1:
        lower.legend()
    return figure


def purity_curve(share: Floats, purity: Floats, stated: Floats) -> Figure:
    """Purity of the rows with the highest odds by their share of all rows, with the stated purity."""
    figure = Figure()
    axes = figure.subplots()
    axes.plot(share, purity, color=BLUE, label="measured")
    axes.plot(share, stated, color=ORANGE, linestyle="--", label="stated: mean odds")
    axes.axhline(0.99, color=MUTED, linewidth=0.9, linestyle=":")
    # A few wrong rows among the first ones make the left end of the curve noise.
    enough = purity[share > 0.02]
    lowest = min(float(enough.min(initial=1.0)), float(stated.min()))
    axes.set(xlabel="share of rows, by falling odds", ylabel="purity", xlim=(0, 1), ylim=(min(lowest, 0.98), 1.0))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.legend()
    return figure


def spectra(wavelength: Floats, rows: Sequence[tuple[str, Floats]]) -> Figure:
    """Spectra one above the other, NaN in masked pixels, each scaled to its median and named at its left end; the first is drawn dark."""
    figure = Figure(figsize=(4.8, 0.6 + 0.8 * len(rows)))
    axes = figure.subplots()
    for number, (name, flux) in enumerate(rows):
        scale = np.nanmedian(np.abs(flux)) if np.isfinite(flux).any() else 1.0
        shown = flux / (scale or 1.0)
        low, high = np.nanquantile(shown, [0.005, 0.995]) if np.isfinite(shown).any() else (0.0, 1.0)
        base = -1.2 * number
        axes.plot(
            wavelength,
            base + (shown - low).clip(0, high - low) / max(high - low, 1e-6),
            color=INK if number == 0 else BLUE,
            linewidth=0.8,
        )
        axes.annotate(name, (0.01, base + 1.02), xycoords=axes.get_yaxis_transform(), fontsize=7, va="bottom")
    axes.set(xlabel="wavelength (angstrom)", xlim=(wavelength[0], wavelength[-1]), ylim=(-1.2 * len(rows) + 1.1, 1.35))
    axes.set_yticks([])
    return figure


def stamps(rows: Sequence[Stamp], columns: int) -> Figure:
    """Stamps side by side, as they lie in their files, and the density of each below, with room for so many columns."""
    figure = Figure(figsize=(4.8, 2.5))
    axes = figure.subplots(2, columns, squeeze=False, height_ratios=(1.4, 1))
    for unused in axes[:, len(rows) :].flat:
        unused.set_axis_off()
    for (above, below), row in zip(axes.T, rows, strict=False):
        above.imshow(row.colors, origin="lower", interpolation="nearest")
        above.set_axis_off()
        if row.density is not None:
            z, density = row.density
            below.fill_between(z, density, color=BLUE, alpha=0.4, linewidth=0)
            below.plot(z, density, color=BLUE, linewidth=1)
        below.axvline(row.z, color=ORANGE, linewidth=1)
        below.set_yticks([])
        below.xaxis.set_major_locator(MaxNLocator(2))
        below.tick_params(labelsize=8)
        below.grid(False)
        below.set_xlabel(f"{row.z_mode:.3g}", fontsize=9)
    return figure


def odds_calibration(odds: Floats, right: Floats, error: Floats) -> Figure:
    """Fraction of right redshifts by odds, in bins."""
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.9)
    axes.errorbar(odds, right, error, color=BLUE, marker="o", markersize=4, linestyle="none")
    axes.set(xlabel="mean odds of a bin", ylabel="fraction of right redshifts", xlim=(0, 1.02), ylim=(0, 1.02))
    return figure


def redshift_distributions(curves: dict[str, tuple[Floats, Floats]], z_max: float) -> Figure:
    """Normalised n(z): name -> (bin edges or grid, density); a grid is as long as its density and is drawn smooth."""
    figure = Figure()
    axes = figure.subplots()
    for (name, (z, density)), (color, dash) in zip(curves.items(), LINES, strict=False):
        if len(z) == len(density):
            axes.plot(z, density, color=color, linestyle=dash, label=name)
        else:
            axes.stairs(density, z, color=color, linestyle=dash, label=name, linewidth=1.6)
    axes.set(xlabel="redshift", ylabel="n(z), normalised", xlim=(0, z_max))
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def separations(kept: Floats, ambiguous: Floats) -> Figure:
    """Histogram of the separation of spectrum and photometric object."""
    figure = Figure()
    axes = figure.subplots()
    both = np.concatenate([kept, ambiguous])
    edges = np.linspace(0, max(float(both.max(initial=0.0)), 1e-3), 41)
    parts, names, colors = [kept], ["one candidate"], [BLUE]
    if len(ambiguous):
        parts, names, colors = [*parts, ambiguous], [*names, "ambiguous"], [*colors, ORANGE]
    axes.hist(parts, bins=list(edges), stacked=True, color=colors, label=names)
    axes.set(xlabel="separation (arcsec)", ylabel="matches", xlim=(0, edges[-1]))
    axes.legend()
    return figure


def model_curve(x: Floats, series: dict[str, Floats], label: str, chosen: float | None, log: bool = False) -> Figure:
    """Scores of a model by epoch, or by the value of a setting such as K: a panel each, as their units differ."""
    figure = Figure(figsize=(4.8, 1.3 + 1.7 * len(series)))
    panels: Sequence[Axes] = list(figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0])
    for axes, (name, values), (color, _) in zip(panels, series.items(), LINES * len(series), strict=False):
        axes.plot(x, values, color=color, marker="o" if len(x) < 40 else None, markersize=3)
        axes.set_ylabel(name)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if chosen is not None:
            axes.axvline(chosen, color=MUTED, linewidth=0.9, linestyle="--")
    panels[-1].set_xlabel(f"{label} (dashed: chosen)" if chosen is not None else label)
    if log:
        panels[-1].set_xscale("log")
        panels[-1].xaxis.set_major_formatter(WHOLE)
        panels[-1].xaxis.set_minor_formatter(NullFormatter())
        panels[-1].set_xticks(x[:: -(-len(x) // 8)])
    else:
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def search_course(scores: Floats, so_far: Floats, metric: str) -> Figure:
    """Scores of the trials of a search in the order in which they ended, NaN without one, and the best so far."""
    figure = Figure()
    axes = figure.subplots()
    number = np.arange(1, len(scores) + 1)
    axes.plot(number, scores, color=BLUE, marker="o", markersize=4, linestyle="none")
    axes.step(number, so_far, where="post", color=ORANGE)
    lost = number[np.isnan(scores)]
    foot = axes.get_xaxis_transform()
    axes.plot(lost, np.full(len(lost), 0.02), color=MUTED, marker="|", markersize=8, linestyle="none", transform=foot)
    axes.set(xlabel="trial, in the order of ending", ylabel=metric, xlim=(0.5, len(scores) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _logarithmic_if_wide(axes, scores)
    return figure


def bars(fractions: dict[str, float]) -> Figure:
    """Horizontal bars of fractions by name, the first on top."""
    figure = Figure(figsize=(4.8, 1.2 + 0.32 * len(fractions)))
    axes = figure.subplots()
    axes.barh(list(fractions), list(fractions.values()), color=BLUE, alpha=0.85)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def search_settings(
    values: dict[str, list[Any]], scores: Floats, best: int, metric: str, logarithmic: set[str]
) -> Figure:
    """Scores of the trials of a search against each setting, a panel each; texts and lists are categories."""
    rows = -(-len(values) // 2)
    figure = Figure(figsize=(4.8, 0.4 + 2.0 * rows))
    panels = list(figure.subplots(rows, min(2, len(values)), sharey=True, squeeze=False).flat)
    for axes, (name, tried) in zip(panels, values.items(), strict=False):
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in tried):
            x = np.array(tried, np.float64)
            if name in logarithmic:
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(PLAIN)
                axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            words = sorted({str(value) for value in tried})
            x = np.array([words.index(str(value)) for value in tried], np.float64)
            axes.set_xticks(range(len(words)), words, rotation=20, ha="right")
            axes.set_xlim(-0.5, len(words) - 0.5)
        axes.plot(x, scores, color=BLUE, marker="o", markersize=3.5, linestyle="none", alpha=0.8)
        axes.plot(x[best], scores[best], color=ORANGE, marker="D", markersize=6)
        axes.set_xlabel(name)
        _logarithmic_if_wide(axes, scores)
    for axes in panels[len(values) :]:
        axes.set_visible(False)
    for axes in panels[:: min(2, len(values))]:
        axes.set_ylabel(metric)
    return figure


def _logarithmic_if_wide(axes: Axes, scores: Floats) -> None:
    """Scores that differ by more than tenfold on a logarithmic axis."""
    if np.nanmin(scores) > 0 and np.nanmax(scores) > 10 * np.nanmin(scores):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(PLAIN)
        axes.yaxis.set_minor_formatter(NullFormatter())


def distributions(axes: list[dict[str, Any]], names: dict[str, str]) -> Figure:
    """Distributions of several quantities, a panel each.

    axes : name and edges of each, and the fraction of rows in each bin under every key of `names`, which names what the
        curves are called.
    """
    lines = -(-len(axes) // 2)
    figure = Figure(figsize=(4.8, 0.6 + 1.5 * lines))
    panels = figure.subplots(lines, 2, squeeze=False).ravel()
    for panel, axis in zip(panels, axes, strict=False):
        for (key, label), (color, dash) in zip(names.items(), LINES, strict=False):
            panel.stairs(axis[key], axis["edges"], color=color, linestyle=dash, label=label)
        panel.set(xlabel=axis["name"], ylabel="share of rows", xlim=(axis["edges"][0], axis["edges"][-1]))
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_locator(MaxNLocator(3))
    for panel in panels[len(axes) :]:
        panel.remove()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(names))
    return figure
