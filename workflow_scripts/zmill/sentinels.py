"""Sentinel values of missing measurements, as a survey definition declares them."""

from __future__ import annotations

import contextlib
import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from zmill.sections import Section, shown

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Range(Section):
    """All values from `min` to `max`, both included; one of them may be left out."""

    min: Finite | None = None
    max: Finite | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.min is None and self.max is None:
            raise ValueError("a range needs min, max or both")
        if self.min is not None and self.max is not None and self.max < self.min:
            raise ValueError(f"max ({self.max:g}) must not be below min ({self.min:g})")
        return self


def _as_sentinel(value: Any) -> Any:
    """A number or a range, with one error message for all other values."""
    value = as_number(value)
    if not isinstance(value, float | dict | Range):
        raise ValueError(f"expected a number such as -99 or a range such as {{max: -1.0e+9}}, found {shown(value)}")
    if isinstance(value, float) and math.isnan(value):
        raise ValueError("NaN needs no sentinel: sentinels.nonfinite defines the meaning of NaN and null")
    return value


def as_number(value: Any) -> Any:
    """A number as float, also one that YAML reads as text (-1e9); other values unchanged."""
    if isinstance(value, int | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            return float(value)
    return value


def one_of(kinds: dict[type, str]) -> Discriminator:
    """Chooses the alternative of a key with several types, so that a message concerns only that one."""
    return Discriminator(lambda value: next((tag for kind, tag in kinds.items() if isinstance(value, kind)), None))


Sentinel = Annotated[
    Annotated[Range, Tag("is-range")] | Annotated[float, Field(allow_inf_nan=True), Tag("is-number")],
    one_of({float: "is-number", dict: "is-range", Range: "is-range"}),
    BeforeValidator(_as_sentinel),
]
ErrorSentinel = Annotated[
    Sentinel | None, BeforeValidator(lambda value: value if value is None else _as_sentinel(value))
]


class ErrorSentinels(Section):
    """Sentinel values of the error column: numbers, ranges, or `null` for NaN and null."""

    upper_limit: list[ErrorSentinel] = []
    """The band is undetected, and its value is the upper limit (CIGALE: `[{max: 0}]`; LePHARE: `[-1]`; WISE: `[null]`)."""
    unobserved: list[ErrorSentinel] = []
    """The band was never observed, whatever the value in the flux column."""


class Sentinels(Section):
    """Sentinel values of missing measurements in the survey's files. Each becomes NaN and a bit of a mask.

    A sentinel is a number or a range `{min: ..., max: ...}`, both ends included. One of `undetected` or `unobserved` in the
    error column means that the error is unknown.
    """

    undetected: list[Sentinel] = []
    """Values that mean observed, but below the limit (RAIL: 99)."""
    unobserved: list[Sentinel] = []
    """Values that mean never observed (RAIL, LePHARE: -99; SDSS: -9999; values around -9.999e9: `{max: -9.0e+9}`)."""
    nonfinite: Literal["undetected", "unobserved"] = "unobserved"
    """Meaning of NaN and null in the flux column. An infinity makes the band unobserved, unless listed above as `.inf`."""
    limit_in_error: bool = False
    """The error column of an undetected band holds its limiting magnitude or flux (RAIL's DC2 sample)."""
    error: ErrorSentinels = ErrorSentinels()
