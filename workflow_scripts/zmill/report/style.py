"""Style of the figures, and their embedding in a light or dark page."""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

INK, MUTED, GRID = "#1b1f24", "#5f6973", "#d9dee4"
BLUE, ORANGE, GREEN, PURPLE = "#0072b1", "#d55e01", "#019e73", "#aa5f93"
"""Okabe & Ito's colors, which are distinct for any color vision (each differs by one digit, so that it can be found in the SVG)."""
VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--line", BLUE: "--blue", ORANGE: "--orange", GREEN: "--green", PURPLE: "--purple",
}  # fmt: skip
"""Colors that the page's style sheet sets, for light and for dark pages."""

RC: dict[Any, Any] = {
    "figure.figsize": (4.8, 3.6),
    "figure.constrained_layout.use": True,
    "font.size": 10.0,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "svg.fonttype": "none",
    "savefig.transparent": True,
    "savefig.dpi": 150,
}


def style(name: str) -> AbstractContextManager[Any]:
    """The settings under which the figure `name` is drawn and saved; the name keeps the ids inside the SVG apart."""
    return matplotlib.rc_context({**RC, "svg.hashsalt": name})


def to_svg(figure: Figure) -> Markup:
    """A figure as an `<svg>` element whose colors are the page's. Labels are text, escaped by matplotlib."""
    sink = io.StringIO()
    figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    return Markup(re.sub(r'<svg ([^>]*?)width="[^"]*"', r'<svg \1 aria-hidden="true"', text, count=1))
