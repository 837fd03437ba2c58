"""Elements of a page (sections of notes, tables and figures) and the format of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from zmill.report.style import style, to_svg


@dataclass(frozen=True)
class Note:
    """A paragraph. `warning` highlights it."""

    text: str
    warning: bool = False
    kind: str = "note"


@dataclass(frozen=True)
class Cell:
    """The text of a cell, and the number that its column is sorted by (None: by its text). `best` highlights it."""

    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under headers; `marked` is the highlighted row."""

    caption: str
    headers: list[str]
    rows: list[list[Cell]]
    marked: int | None = None
    kind: str = "table"

    @property
    def numeric(self) -> set[int]:
        """Columns of numbers."""
        columns = range(len(self.headers))
        return {column for column in columns if any(row[column].value is not None for row in self.rows)}


@dataclass(frozen=True)
class Picture:
    """A figure with its caption and its alternative text."""

    svg: Markup
    caption: str
    alt: str
    kind: str = "picture"


@dataclass(frozen=True)
class Details:
    """Text that opens on a click, such as a configuration."""

    title: str
    text: str
    kind: str = "details"


Block = Note | Table | Picture | Details


@dataclass
class Section:
    """A part of the page."""

    id: str
    title: str
    short: str
    """Its name in the navigation."""
    blocks: list[Block] = field(default_factory=list)


def picture(name: str, caption: str, alt: str, draw: Callable[[], Figure]) -> Picture:
    """Draw a figure in the page's style; `name` is unique on the page."""
    with style(name):
        return Picture(to_svg(draw()), caption, alt)


def count(value: float) -> Cell:
    """A count, with separators of thousands."""
    return Cell(f"{value:,.0f}", float(value))


def number(value: Any, digits: int = 3) -> Cell:
    """A measured number with the given significant digits; a dash where there is none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return Cell("–")
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0) if value else 0
        return Cell(minus(f"{value:,.{min(decimals, 6)}f}"), float(value))
    return Cell(minus(f"{value:.{digits - 1}e}"), float(value))


def percent(fraction: Any) -> Cell:
    """A fraction as a percentage; a dash where there is none."""
    if not isinstance(fraction, int | float) or not math.isfinite(fraction):
        return Cell("–")
    return Cell(minus(f"{100 * fraction:.{1 if abs(fraction) >= 0.0995 else 2}f} %"), float(fraction))


def duration(seconds: float) -> Cell:
    """A duration, in a suitable unit."""
    if seconds < 90:
        return Cell(f"{seconds:.1f} s", seconds)
    if seconds < 5400:
        return Cell(f"{seconds / 60:.1f} min", seconds)
    return Cell(f"{seconds / 3600:.1f} h", seconds)


def text(value: Any) -> Cell:
    """A cell of text."""
    return Cell(str(value))


def fraction_rows(counts: Iterable[tuple[str, float]], total: float) -> list[list[Cell]]:
    """Rows of name, count and fraction of the total."""
    return [[text(name), count(n), percent(n / total if total else math.nan)] for name, n in counts]


def minus(written: str) -> str:
    """A true minus sign."""
    return written.replace("-", "\N{MINUS SIGN}")
