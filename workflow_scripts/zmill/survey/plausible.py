"""Plausibility check of the first rows of a survey's files: undeclared sentinel values, impossible errors and magnitudes.

The import itself counts certain faults; this check warns of probable ones before the import starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.columns import floats
from zmill.inputs.photometry.batch import MAGNITUDES, ZERO_POINTS
from zmill.inputs.photometry.states import BRIGHTEST, FAINTEST, is_any
from zmill.survey.counts import Counts
from zmill.survey.readers import open_table
from zmill.survey.rows import array_columns, convert, input_columns, layout_of, positions
from zmill.survey_definition import Extinction, Range, Survey

LOOK_FILES, LOOK_ROWS = 20, 200_000
"""Number of files, spread over all of them, that are checked, and the total number of their first rows."""
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


@dataclass(frozen=True)
class Look:
    """The findings in the first rows.

    warnings : one sentence each, with counts and the setting to write.
    refusal : the reason to refuse the files, where all rows were checked; None otherwise.
    """

    warnings: list[str]
    refusal: str | None


def look(files: Sequence[Path], survey: Survey) -> Look:
    """Check the first rows of the existing files.

    Raises
    ------
    ReadError
        Where a file cannot be read.
    """
    columns = survey.columns.model_copy(update={"object_id": None, "extra": []})
    # Only the import reads E(B-V) from a map.
    extinction = Extinction() if survey.extinction.map else survey.extinction
    has_positions = bool(survey.files)
    # Positions are checked here, because pixels are not needed and importing their library takes seconds.
    survey = survey.model_copy(update={"columns": columns, "extinction": extinction, "files": [], "tables": None})
    there = [path for path in map(Path, files) if path.exists()]
    step = max(1, -(-len(there) // LOOK_FILES))
    chosen = there[::step]
    counts, everything = Counts(), len(chosen) == len(files)
    seen = _Seen(survey)
    layout = layout_of(survey, {})
    for path in chosen:
        most = max(1, LOOK_ROWS // len(chosen))
        for batch in _batches(path, survey, most):
            if most <= 0:
                everything = False
                break
            batch = batch.slice(0, most)
            most -= batch.num_rows
            converted = convert(batch, layout, 0)
            if has_positions:
                ra, dec, astray = positions(batch, survey)
                np.copyto(converted.reason, astray, where=astray > 0)
                seen.add_positions(ra[astray == 0], dec[astray == 0])
            counts.add(converted.counted())
            seen.add(batch, converted.columns, converted.faults, converted.reason == 0)
        everything &= most > 0
    of = f"of {'' if everything else 'the first '}{counts.rows} rows"
    warnings = [f"{reason}: {n} {of} are set aside" for reason, n in sorted(counts.rejected.items())]
    warnings += [line for line in counts.lines() if not line.startswith("flux_far_below_zero")]  # no sentinel
    warnings += seen.warnings(of)
    return Look(warnings, counts.refusal() if everything else None)


def _batches(path: Path, survey: Survey, rows: int) -> Iterator[pa.RecordBatch]:
    columns = list(input_columns(survey))
    table = open_table(path, survey.format, survey.group)
    arrays = array_columns(survey)
    numeric = [name for name in columns if name not in arrays]
    yield from table.batches(columns, min(rows, 50_000), numeric=numeric, arrays=arrays)


class _Seen:
    """Values of the checked rows, by column."""

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        self.values: dict[str, list[Floats]] = {}
        self.rows: dict[str, int] = {}
        self.errors: set[str] = set()
        self.mags: dict[str, list[Floats]] = {}
        self.ratios: dict[str, list[Floats]] = {}
        self.extents: list[tuple[float, float]] = []
        self.positions = 0
        self.good = 0

    def add(
        self, batch: pa.RecordBatch, columns: dict[str, Any], faults: dict[str, dict[str, Booleans]], good: Booleans
    ) -> None:
        """Add the values of a batch."""
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

    def add_positions(self, ra: Floats, dec: Floats) -> None:
        """Add the largest coordinates of positions, in degrees."""
        if len(ra):
            self.extents.append((float(np.abs(ra).max()), float(np.abs(dec).max())))
            self.positions += len(ra)

    def _keep(self, column: str, values: Floats, rows: int) -> None:
        self.values.setdefault(column, []).append(values)
        self.rows[column] = self.rows.get(column, 0) + rows

    def warnings(self, of: str) -> list[str]:
        """All warnings."""
        return [*self._repeated(of), *self._absent(of), *self._medians(), *self._positions()]

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

    def _positions(self) -> list[str]:
        if self.positions < ENOUGH or self.survey.columns.angle_unit != "degree":
            return []
        ra, dec = np.max(self.extents, axis=0)
        if ra <= 2 * np.pi and dec <= np.pi / 2:
            return [
                f"all right ascensions are at most {ra:.4f} and all declinations at most {dec:.4f} degrees: if these are "
                "radians, write columns: {angle_unit: radian}"
            ]
        return []


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
