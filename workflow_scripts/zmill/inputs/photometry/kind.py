"""The input kind photometry: magnitudes, errors and limits in the bands of a survey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.columns import floats, numpy_column
from zmill.inputs.base import Converted, InputKind, Rows
from zmill.inputs.photometry import batch as photometry
from zmill.inputs.photometry import flags
from zmill.inputs.photometry.batch import Photometry, mask_of
from zmill.inputs.photometry.impute import ColorSums, MeanColors, fill
from zmill.inputs.photometry.missing_bands import BandRemoval
from zmill.inputs.photometry.plausible import PhotometryInspection
from zmill.inputs.photometry.states import FAULTS, BandState, band_state
from zmill.inputs.photometry.units import wrong_units
from zmill.survey_definition import Survey
from zmill.workflow.job import log

PER_BAND = ("mag", "magerr", "maglim")
"""Columns of each band in `survey/`: magnitude, error, limit."""
SAME = 0.5
"""Largest median difference in magnitude of two rows of one object."""


@dataclass(frozen=True)
class PhotometryKind(InputKind):
    """Photometry of a survey.

    bands : from blue to red.
    reference : index of the reference band.
    extra_names : further numeric columns of the survey that are read.
    filters : band -> filter curve of speclite; empty where unknown.
    """

    name = "photometry"
    flag_bits = flags.BITS
    faults = FAULTS
    quiet_faults = ("flux_far_below_zero",)
    training_only = ("filters",)
    source = "columns.flux"
    measured = "magnitudes"
    parts = "bands"
    models: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "knn": {},
        "fcnn": {"epochs": 40, "batch": 128, "lr": 0.005, "one_cycle": True},  # quicker than published, and better
        "ensemble": {},
    }

    bands: tuple[str, ...]
    reference: int
    extra_names: tuple[str, ...] = ()
    filters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, survey: Survey) -> Self | None:
        if not survey.bands:
            return None
        bands = tuple(survey.bands)
        return cls(bands, bands.index(survey.reference), filters=dict(survey.filters))

    @classmethod
    def source_columns(cls, survey: Survey) -> dict[str, str]:
        found: dict[str, str] = {}
        for kind in ("flux", "error"):
            for band in survey.bands:
                if column := survey.column_of(kind, band):
                    found.setdefault(column, f"columns.{kind} of band {band}")
        for band in survey.bands:
            if isinstance(zero_point := survey.zero_point_of(band), str):
                found.setdefault(zero_point, "zero_point")
        return found

    @classmethod
    def numeric_columns(cls, survey: Survey) -> set[str]:
        return set(cls.source_columns(survey))

    @classmethod
    def wrong_units(cls, units: Mapping[str, str], survey: Survey) -> dict[str, str]:
        return wrong_units(units, survey)

    @classmethod
    def schema(cls, survey: Survey) -> list[pa.Field]:
        per_band = [pa.field(f"{kind}_{band}", pa.float32()) for kind in PER_BAND for band in survey.bands]
        return [*per_band, pa.field("undetected", pa.int32()), pa.field("unobserved", pa.int32())]

    @classmethod
    def cut_columns(cls, survey: Survey) -> list[str]:
        return [f"{kind}_{band}" for kind in ("mag", "magerr") for band in survey.bands]

    @classmethod
    def convert(cls, batch: pa.RecordBatch, survey: Survey, ebv: NDArray[np.floating]) -> Converted:
        columns: dict[str, Any] = {}
        faults: dict[str, dict[str, NDArray[np.bool_]]] = {}
        undetected, unobserved = [], []
        for band in survey.bands:
            coefficient = survey.extinction.coefficients.get(band, 0.0)
            state = _state(batch, survey, band, coefficient * ebv if coefficient else 0.0)
            for name in PER_BAND:
                columns[f"{name}_{band}"] = getattr(state, name)
            undetected.append(state.undetected)
            unobserved.append(state.unobserved)
            if state.faults:
                faults[band] = state.faults
        columns["undetected"] = mask_of(np.stack(undetected, axis=1))
        columns["unobserved"] = mask_of(np.stack(unobserved, axis=1))
        empty = np.zeros(batch.num_rows, np.bool_)
        if faults:
            faulty = np.logical_or.reduce([rows for found in faults.values() for rows in found.values()])
            empty = faulty & (columns["unobserved"] == (1 << len(survey.bands)) - 1)
        return Converted(columns, empty, faults)

    @classmethod
    def inspection(cls, survey: Survey) -> PhotometryInspection:
        return PhotometryInspection(survey)

    @classmethod
    def empty(cls, rows: Rows, survey: Survey) -> NDArray[np.bool_]:
        return np.logical_and.reduce([np.isnan(numpy_column(rows.column(name))) for name in cls.empty_columns(survey)])

    @classmethod
    def empty_columns(cls, survey: Survey) -> list[str]:
        return [f"mag_{band}" for band in survey.bands]

    def agree(self, one: Rows, other: Rows) -> NDArray[np.bool_]:
        """(n,) whether the median difference of the magnitudes, over the bands that both rows have, is at most `SAME`.

        Rows without a band in common agree where neither has any magnitude.
        """
        names = [f"mag_{band}" for band in self.bands if f"mag_{band}" in one.schema.names]
        if not names or not one.num_rows:
            return np.ones(one.num_rows, np.bool_)
        mag, others = (np.stack([numpy_column(rows.column(name)) for name in names], axis=1) for rows in (one, other))
        difference = np.abs(mag - others)
        common = np.isfinite(difference).any(axis=1)
        median = np.nanmedian(np.where(common[:, None], difference, 0), axis=1)
        neither = ~(np.isfinite(mag) | np.isfinite(others)).any(axis=1)
        return np.where(common, median <= SAME, neither)

    def magnitude_column(self) -> str:
        return f"mag_{self.bands[self.reference]}"

    def drift_columns(self) -> list[str]:
        return [f"mag_{band}" for band in self.bands]

    def drift(self, rows: Rows) -> dict[str, dict[str, float | None]]:
        """The median magnitude, and the fraction of rows that are measured, of each band."""
        medians: dict[str, float | None] = {}
        shares: dict[str, float | None] = {}
        for band in self.bands:
            values = numpy_column(rows.column(f"mag_{band}"))
            good = values[np.isfinite(values)]
            medians[band] = float(np.median(good)) if len(good) else None
            shares[band] = len(good) / max(len(values), 1)
        return {"magnitudes": medians, "measured": shares}

    def learner(self) -> Colors:
        return Colors(self.bands)

    def added(self) -> list[pa.Field]:
        return [pa.field("imputed", pa.int32())]

    def clean(self, rows: Rows, learned: Any) -> tuple[Rows, dict[str, Any]]:
        names = [f"mag_{band}" for band in self.bands]
        given = [numpy_column(rows.column(name)) for name in names]
        mag, imputed = given, np.zeros(rows.num_rows, np.int32)
        if learned is not None:
            mag, imputed = fill(given, MeanColors.from_json(learned))
            for name, before, after in zip(names, given, mag, strict=True):
                if after is not before:
                    rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), pa.array(after))
        rows = rows.append_column(self.added()[0], pa.array(imputed))
        empty = [np.isnan(values) for values in mag]
        counts = {
            "no_band": int(np.count_nonzero(np.logical_and.reduce(empty))),
            "imputed": {band: int(np.count_nonzero(imputed & (1 << bit))) for bit, band in enumerate(self.bands)},
            "missing": {band: int(np.count_nonzero(mask)) for band, mask in zip(self.bands, empty, strict=True)},
        }
        return rows, counts

    def log_counts(self, counts: Mapping[str, Any]) -> None:
        for band, count in counts["imputed"].items():
            left = counts["missing"][band]
            stays = f", {left:,} stay without a magnitude" if left else ""
            log.info("%s: %s rows imputed%s", band, f"{count:,}", stays)
        if counts["no_band"]:
            log.warning("%s rows have no magnitude in any band", f"{counts['no_band']:,}")

    def with_extra(self, names: Sequence[str]) -> Self:
        return replace(self, extra_names=tuple(names))

    def columns(self) -> list[str]:
        return photometry.columns(self.bands, self.extra_names)

    def needed(self) -> list[str]:
        return [*(f"mag_{band}" for band in self.bands), *self.extra_names]

    def read(self, rows: Rows) -> Photometry:
        return Photometry.from_arrow(rows, self.bands, self.extra_names, self.reference)

    def degradation(self, train: Photometry, learned: Any) -> BandRemoval:
        return BandRemoval.of(train, None if learned is None else partial(fill, colors=MeanColors.from_json(learned)))

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"reference": self.bands[self.reference]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        bands = tuple(content["bands"])
        return cls(
            bands, bands.index(content["reference"]), tuple(content["extra_names"]), dict(content.get("filters", {}))
        )

    @property
    def brightness(self) -> str:
        """For example `i (AB magnitude)`."""
        return f"{self.bands[self.reference]} (AB magnitude)"

    def differs(self, survey: Self) -> str:
        if self.bands == survey.bands:
            return ""
        return f"trained on the bands {', '.join(self.bands)}, but the photometry has {', '.join(survey.bands)}"


class Colors:
    """The learner of the imputation: mean colors of training rows, from measured magnitudes alone."""

    def __init__(self, bands: tuple[str, ...]) -> None:
        self.names = [f"mag_{band}" for band in bands]
        self.sums = ColorSums(bands)

    def add(self, rows: Rows) -> None:
        """Add rows of `survey/`."""
        self.sums.add([numpy_column(rows.column(name)) for name in self.names])

    def result(self) -> dict[str, Any]:
        """`MeanColors.to_json`."""
        return self.sums.colors().to_json()

    def log(self) -> None:
        """Log the mean color of each pair of neighboring bands, and warn of pairs that are never measured together."""
        colors = self.sums.colors()
        for name, color, pairs in zip(colors.names, colors.color, colors.pairs, strict=True):
            if pairs:
                log.info("mean color %s: %.4f mag from %s rows", name, color, f"{pairs:,}")
            else:
                log.warning(
                    "mean color %s: the two bands are never measured together; nothing is filled across them", name
                )


def _state(batch: pa.RecordBatch, survey: Survey, band: str, absorbed: float | NDArray[np.floating]) -> BandState:
    flux, error = survey.column_of("flux", band), survey.column_of("error", band)
    if flux is None:
        return BandState.never(batch.num_rows)
    zero_point = survey.zero_point_of(band)
    return band_state(
        floats(batch.column(flux)),
        floats(batch.column(error)) if error else None,
        survey.photometry,
        survey.sentinels,
        survey.vega_to_ab.get(band, 0.0),
        survey.softening.get(band),
        floats(batch.column(zero_point)) if isinstance(zero_point, str) else zero_point,
        survey.errors,
        absorbed,
    )
