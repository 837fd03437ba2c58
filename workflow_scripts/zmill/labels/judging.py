"""Settings common to all tables of redshifts: the columns, and the quality of the flags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, field_validator, model_validator

from zmill.config import Section, nearest
from zmill.labels.base import SourceSettings
from zmill.labels.quality import (
    KINDS,
    SCHEMES,
    Flags,
    Judged,
    Texts,
    by_table,
    kind_reason,
    nothing,
    plain_flag,
    unknown,
)
from zmill.sections import Text, shown

Quality = Annotated[int, Field(ge=0, le=4)]


class LabelColumns(Section):
    """The columns of a table of redshifts."""

    model_config = ConfigDict(populate_by_name=True)

    ra: Text
    dec: Text
    redshift: Text
    redshift_err: Text | None = None
    flag: Text | None = None
    """The survey's own quality flag."""
    kind: Text | None = Field(default=None, alias="class")
    """The object's class: star, galaxy, QSO, or whether its redshift is photometric. The key is `class`."""
    id: Text | None = None
    """The spectrum's identifier; without one, the row number over all files is used."""
    primary: Text | None = None
    """True for the best of several spectra of one object (SDSS `sciencePrimary`)."""
    velocity: Text | None = None
    """A radial velocity: entries that have it and no redshift are rejected as `velocity_only`."""
    magnitude: Text | None = None
    """A magnitude, copied to the output."""


class QualityMap(Section):
    """A table of flags."""

    map: dict[str, Quality]
    """Quality of each flag."""
    default: Quality = 0
    """Quality of flags that the map does not name."""

    @field_validator("map", mode="before")
    @classmethod
    def _keys_as_text(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {_key(key): quality for key, quality in value.items()}


def _key(key: Any) -> str:
    """A key of `map` as flags are written: truth values are `true` and `false`, numbers have no zeros behind the point."""
    if isinstance(key, bool):
        return str(key).lower()
    return f"{key:.10g}" if isinstance(key, int | float) else str(key)


class Judging(SourceSettings):
    """How the columns of a table are judged."""

    columns: LabelColumns
    scheme: Text | None = None
    """Name of the survey whose flag definitions are used (`zmill.labels.flags`)."""
    quality: Quality | QualityMap | None = None
    """Instead of a scheme: one quality for all entries, or `map:` from flags to qualities with a `default:`."""

    @model_validator(mode="after")
    def _judged_once(self) -> Judging:
        if (self.scheme is None) == (self.quality is None):
            raise ValueError("give either scheme (a survey whose flags are known) or quality (a number or a map)")
        if self.scheme is not None:
            if self.scheme not in SCHEMES:
                raise ValueError(
                    f"there is no scheme {shown(self.scheme)}{nearest(self.scheme, list(SCHEMES))}; "
                    f"the schemes are {', '.join(sorted(SCHEMES))}"
                )
            lacking = [key for key in SCHEMES[self.scheme].needs if self._column(key) is None]
            if lacking:
                raise ValueError(f"scheme {self.scheme} needs columns.{' and columns.'.join(lacking)}")
        if isinstance(self.quality, QualityMap) and self.columns.flag is None:
            raise ValueError("quality.map needs columns.flag")
        return self

    def _column(self, key: str) -> str | None:
        value: str | None = getattr(self.columns, "kind" if key == "class" else key)
        return value

    def named(self) -> dict[str, str]:
        """The file's column for each key that is given."""
        return {key: value for key, value in self.columns.model_dump().items() if value is not None}

    def unknown(self, flags: Flags) -> Texts:
        """(n,) the flag or class that neither scheme nor map knows (`zmill.labels.quality.unknown`)."""
        if self.scheme is not None:
            return SCHEMES[self.scheme].unknown(flags)
        known: Callable[[str], bool] = lambda flag: True  # noqa: E731
        if isinstance(self.quality, QualityMap) and "default" not in self.quality.model_fields_set:
            named = {plain_flag(flag) for flag in self.quality.map}
            known = lambda flag: plain_flag(flag) in named  # noqa: E731
        return unknown(flags, known, KINDS)

    def judge(self, flags: Flags) -> Judged:
        """Quality and reason of rows with these flags."""
        if self.scheme is not None:
            quality, reason = SCHEMES[self.scheme].judge(flags)
        elif isinstance(self.quality, QualityMap):
            assert flags.flag is not None  # the settings were validated so
            quality, reason = by_table(dict(self.quality.map), flags.flag, self.quality.default)
        else:
            quality, reason = nothing(flags.rows, self.quality or 0)
        if flags.kind is not None and self.scheme != "ned":
            reason = np.where(reason != "", reason, kind_reason(flags.kind))
        return quality, reason
