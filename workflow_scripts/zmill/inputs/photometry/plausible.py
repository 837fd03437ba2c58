"""Plausibility check of photometry: undeclared sentinel values, impossible errors and magnitudes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.columns import floats
from zmill.inputs.base import Inspection
from zmill.inputs.photometry.batch import MAGNITUDES, ZERO_POINTS
from zmill.inputs.photometry.states import BRIGHTEST, FAINTEST, is_any
from zmill.sentinels import Range
from zmill.survey_definition import Survey

REPEATED = 0.01
"""A single value in a larger fraction of a column is not a measurement."""
ENOUGH = 100
"""Least number of rows for a warning."""
LOWEST_RATIO, HIGHEST_RATIO = 0.2, 5000.0
"""A median signal-to-noise ratio lies between these: pure noise has 0.67, and no photometry is better than 0.02 %."""
BRIGHTEST_MEDIAN, FAINTEST_MEDIAN = 8.0, 29.0
"""The median magnitude of a survey's galaxies lies between these."""

Floats = NDArray[np.floating]
Booleans = NDArray[np.bool_]


class PhotometryInspection(Inspection):
    """Values of the checked rows, by column."""

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        self.values: dict[str, list[Floats]] = {}
        self.rows: dict[str, int] = {}
        self.errors: set[str] = set()
        self.mags: dict[str, list[Floats]] = {}
        self.ratios: dict[str, list[Floats]] = {}
        self.good = 0

    def add(
        self,
        batch: pa.RecordBatch,
        columns: Mapping[str, Any],
        faults: Mapping[str, Mapping[str, Booleans]],
        good: Booleans,
    ) -> None:
        survey, sentinels = self.survey, self.survey.sentinels
        declared = [*sentinels.undetected, *sentinels.unobserved]
        self.good += int(good.sum())
        for number, band in enumerate(survey.bands):
            flux, error = survey.column_of("flux", band), survey.column_of("error", band)
            if flux is None:
                continue
            value = floats(batch.column(flux))
            looked = (columns["unobserved"] >> number & 1) == 0
            for rows in faults.get(band, {}).values():
                looked = looked | rows
            looked = looked & good & ~is_any(value, declared)
            noise = None
            if error is not None:
                noise = floats(batch.column(error))
                stated = [*sentinels.error.upper_limit, *sentinels.error.unobserved]
                looked &= ~is_any(noise, stated)
                known = looked & ~is_any(noise, declared) & ~np.isnan(noise)
                self._keep(error, noise[known], int(good.sum()))
                self.errors.add(error)
            self._keep(flux, value[looked], int(good.sum()))
            mag = columns[f"mag_{band}"]
            self.mags.setdefault(band, []).append(mag[good & np.isfinite(mag)])
            if noise is not None:
                self.ratios.setdefault(band, []).append(_ratios(value, noise, survey)[looked & (noise > 0)])

    def _keep(self, column: str, values: Floats, rows: int) -> None:
        self.values.setdefault(column, []).append(values)
        self.rows[column] = self.rows.get(column, 0) + rows

    def warnings(self, of: str) -> list[str]:
        return [*self._repeated(of), *self._absent(of), *self._medians()]

    def _absent(self, of: str) -> list[str]:
        """Warnings of bands without a measurement."""
        absent = [band for band, parts in self.mags.items() if not any(map(len, parts))]
        if not absent or self.good < ENOUGH:
            return []
        return [
            f"{', '.join(absent)}: measured in none {of}: check columns.flux and sentinels, or leave out bands that the survey "
            "does not have"
        ]

    def _repeated(self, of: str) -> list[str]:
        """Warnings of probable sentinel values, with the line that declares them."""
        found: dict[tuple[float, bool], dict[str, int]] = {}
        for column, parts in self.values.items():
            values = np.concatenate(parts)
            for value, number in _suspects(values, self.rows[column], self._impossible(column)):
                if column in self.errors and 0 < value < 10 * np.nanmedian(values):
                    continue  # errors are rounded, and have floors
                found.setdefault((value, column in self.errors), {})[column] = number
        lines = []
        for (value, in_error), columns in found.items():
            where = ", ".join(f"{column} ({number})" for column, number in list(columns.items())[:8])
            more = f" and {len(columns) - 8} more columns" if len(columns) > 8 else ""
            lines.append(
                f"one value, {value:g}, stands in {where}{more} {of}: if it means a missing measurement, declare it: "
                + self._line(value, in_error)
            )
        return lines

    def _impossible(self, column: str) -> bool:
        """Whether even a few numbers out of the range of magnitudes give a warning."""
        return self.survey.photometry not in (*ZERO_POINTS, "flux") and column not in self.errors

    def _line(self, value: float, in_error: bool) -> str:
        sentinels = self.survey.sentinels
        if in_error:
            return f"sentinels: {{error: {{unobserved: {_yaml([*sentinels.error.unobserved, value])}}}}}"
        key = "undetected" if value > 0 and self._is_magnitude() else "unobserved"
        return f"sentinels: {{{key}: {_yaml([*getattr(sentinels, key), value])}}}"

    def _is_magnitude(self) -> bool:
        return self.survey.photometry in ("ab_magnitude", "vega_magnitude", "luptitude")

    def _medians(self) -> list[str]:
        lines = []
        faint = {
            band: float(np.median(m)) for band, parts in self.mags.items() if len(m := np.concatenate(parts)) >= ENOUGH
        }
        strange = {b: m for b, m in faint.items() if not BRIGHTEST_MEDIAN <= m <= FAINTEST_MEDIAN}
        if strange:
            lines.append(
                f"the median magnitude is {_listed(strange, '.1f')}: check photometry ({self.survey.photometry})"
                + (" and zero_point" if self.survey.photometry == "flux" else "")
            )
        noisy = {
            b: float(np.median(r)) for b, parts in self.ratios.items() if len(r := np.concatenate(parts)) >= ENOUGH
        }
        strange = {b: r for b, r in noisy.items() if not LOWEST_RATIO <= r <= HIGHEST_RATIO}
        if strange:
            other = "sigma" if self.survey.errors == "inverse_variance" else "inverse_variance"
            lines.append(
                f"the median signal-to-noise ratio is {_listed(strange, '.3g')}, which no photometry has: check "
                f"columns.error and errors ({self.survey.errors}; is it {other}?)"
            )
        return lines


def _suspects(values: Floats, rows: int, impossible: bool) -> list[tuple[float, int]]:
    """Values that occur in more than `REPEATED` of the rows, and how often; the most frequent magnitude out of range too.

    Rounded numbers repeat, too: only a value that is far more frequent than the fifth is returned.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return []
    distinct, times = np.unique(values, return_counts=True)
    order = np.argsort(-times, kind="stable")
    fifth = times[order[4]] if len(order) > 4 else 0
    chosen = [n for n in order[:4] if rows >= ENOUGH and times[n] > max(REPEATED * rows, 10 * fifth, 3)]
    if impossible:
        strange = [n for n in order if not (BRIGHTEST < distinct[n] <= FAINTEST) and times[n] > 1]
        chosen += [n for n in strange[:1] if n not in chosen]
    return [(float(distinct[n]), int(times[n])) for n in chosen]


def _ratios(value: Floats, noise: Floats, survey: Survey) -> Floats:
    """Signal-to-noise ratios of raw values and errors, NaN left out."""
    with np.errstate(all="ignore"):
        if survey.errors == "signal_to_noise":
            return np.abs(noise)
        sigma = 1 / np.sqrt(noise) if survey.errors == "inverse_variance" else noise
        if survey.photometry in (*ZERO_POINTS, "flux"):
            return np.abs(value / sigma)
        return MAGNITUDES / sigma


def _listed(numbers: dict[str, float], form: str) -> str:
    return ", ".join(f"{number:{form}} in {band}" for band, number in numbers.items())


def _yaml(values: Sequence[float | Range | None]) -> str:
    return f"[{', '.join(map(_number, values))}]"


def _number(value: float | Range | None) -> str:
    """The value in YAML syntax."""
    if value is None:
        return "null"
    if isinstance(value, Range):
        ends = {"min": value.min, "max": value.max}
        return "{" + ", ".join(f"{key}: {_number(end)}" for key, end in ends.items() if end is not None) + "}"
    if np.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return text.replace("e", ".0e", 1) if "e" in text and "." not in text else text
