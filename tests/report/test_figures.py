"""Figures: what is drawn is what was given, in colours that the page can change."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from zmill.report import figures
from zmill.report.binned import trend
from zmill.report.style import RC, VARIABLES, style, to_svg

RANDOM = np.random.default_rng(1)
Z = RANDOM.gamma(3, 0.2, 800)
PHOT = Z + 0.03 * RANDOM.normal(size=800)
DRAWN = {
    "plane": lambda: figures.redshift_plane(Z, PHOT, 0, 3),
    "trend": lambda: figures.error_trend(trend(Z, PHOT, Z, np.arange(800)), "redshift"),
    "errors": lambda: figures.error_histogram(PHOT - Z, 0.1),
    "pit": lambda: figures.pit_histogram({"knn": RANDOM.random(800), "fcnn": RANDOM.random(800)}),
    "counts": lambda: figures.pit_counts({"a": np.full(20, 40.0), "b": np.arange(20.0)}),
    "qq": lambda: figures.pit_quantiles({"knn": RANDOM.random(800)}),
    "nz": lambda: figures.redshift_distributions(
        {"a": (np.linspace(0, 1, 9), np.ones(9)), "b": (np.linspace(0, 1, 9), np.ones(8))}, 1
    ),
    "separations": lambda: figures.separations(np.abs(PHOT), np.abs(PHOT[:5])),
    "no_match": lambda: figures.separations(np.empty(0), np.empty(0)),
    "history": lambda: figures.model_curve(np.arange(5.0), {"loss": np.ones(5), "score": np.ones(5)}, "epoch", 3),
    "distributions": lambda: figures.distributions(
        [{"name": f"<{n}>", "edges": [0, 1, 2], "a": [0.5, 0.5], "b": [0.2, 0.8]} for n in range(3)],
        {"a": "A", "b": "B"},
    ),
    "k": lambda: figures.model_curve(np.array([3.0, 9, 27]), {"crps": np.ones(3)}, "K", 9, log=True),
}


@pytest.mark.parametrize("name", DRAWN)
def test_figures_are_complete_svgs_in_the_colors_of_the_page(name: str) -> None:
    with style(name):
        svg = str(to_svg(DRAWN[name]()))
    root = ElementTree.fromstring(svg)
    assert root.get("width") is None and root.get("viewBox")
    left, top, width, height = map(float, root.get("viewBox").split())
    for label in root.iter("{http://www.w3.org/2000/svg}text"):
        if label.get("x"):
            assert left < float(label.get("x")) < left + width and top < float(label.get("y")) < top + height
    colors = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg))
    assert not colors & set(VARIABLES), "a colour of the style sheet is left as it was"
    allowed = {"#ffffff", "#000000"}
    assert colors <= allowed or name == "plane"
    assert "mathdefault" not in svg


def test_names_are_taken_as_they_are() -> None:
    with style("names"):
        svg = str(to_svg(figures.pit_histogram({"<b>$x^2$</b>": Z / 9, "other": Z / 9})))
    assert "&lt;b&gt;$x^2$&lt;/b&gt;" in svg


def test_axes_have_labels() -> None:
    for name, draw in DRAWN.items():
        with style(name):
            figure = draw()
        assert any(axes.get_xlabel() for axes in figure.axes), name
        assert all(axes.get_ylabel() for axes in figure.axes), name


def test_colors_differ_from_each_other() -> None:
    assert len(set(VARIABLES)) == len(set(VARIABLES.values())) == 7
    assert RC["svg.fonttype"] == "none"


def test_counts_in_the_plane_are_those_of_the_rows() -> None:
    figure = figures.redshift_plane(Z, PHOT, 0, 3)
    drawn = figure.axes[0].collections[0].get_array()
    assert drawn.sum() == np.count_nonzero(Z <= 3)
