"""What a page is made of: sections of notes, tables and figures; and how numbers are written."""

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
    """A paragraph. `warning` sets it apart."""

    text: str
    warning: bool = False
    kind: str = "note"


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and the number that its column is sorted by (None: by its text). `best` sets it apart."""

    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under headers; `marked` is the row that stands out."""

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
    """A figure with its caption and the sentence that stands for it where it cannot be seen."""

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
    """What the navigation calls it."""
    blocks: list[Block] = field(default_factory=list)


def picture(name: str, caption: str, alt: str, draw: Callable[[], Figure]) -> Picture:
    """Draw a figure in the page's style; `name` is unique on the page."""
    with style(name):
        return Picture(to_svg(draw()), caption, alt)


def count(value: float) -> Cell:
    """A number of things."""
    return Cell(f"{value:,.0f}", float(value))


def number(value: Any, digits: int = 3) -> Cell:
    """A measured number with so many significant digits; a dash where there is none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return Cell("–")
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0) if value else 0
        return Cell(minus(f"{value:,.{min(decimals, 6)}f}"), float(value))
    return Cell(minus(f"{value:.{digits - 1}e}"), float(value))


def percent(share: Any) -> Cell:
    """A share, as a percentage; a dash where there is none."""
    if not isinstance(share, int | float) or not math.isfinite(share):
        return Cell("–")
    return Cell(minus(f"{100 * share:.{1 if abs(share) >= 0.0995 else 2}f} %"), float(share))


def duration(seconds: float) -> Cell:
    """A time, in the unit that suits it."""
    if seconds < 90:
        return Cell(f"{seconds:.1f} s", seconds)
    if seconds < 5400:
        return Cell(f"{seconds / 60:.1f} min", seconds)
    return Cell(f"{seconds / 3600:.1f} h", seconds)


def text(value: Any) -> Cell:
    """Words."""
    return Cell(str(value))


def shares(counts: Iterable[tuple[str, float]], total: float) -> list[list[Cell]]:
    """Rows of name, count and share of the total."""
    return [[text(name), count(n), percent(n / total if total else math.nan)] for name, n in counts]


def minus(written: str) -> str:
    """A true minus sign."""
    return written.replace("-", "\N{MINUS SIGN}")
