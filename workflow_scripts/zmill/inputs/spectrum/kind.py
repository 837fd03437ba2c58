"""The input kind spectrum: flux densities and inverse variances on a wavelength grid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.columns import lists, numpy_column
from zmill.inputs.base import Converted, InputKind, Rows
from zmill.inputs.spectrum.batch import BITS, Spectra, good_fraction
from zmill.inputs.spectrum.continuum import level, median_sn
from zmill.inputs.spectrum.convert import FAULTS, Conversion, is_sky
from zmill.inputs.spectrum.degradation import SpectrumDegradation
from zmill.inputs.spectrum.grid import WavelengthGrid
from zmill.inputs.spectrum.plausible import SpectrumInspection
from zmill.inputs.spectrum.settings import SpectrumSettings, grids
from zmill.inputs.spectrum.units import wrong_units
from zmill.survey_definition import Survey

SKY = "sky_fiber"
FLUX, IVAR, SN, GOOD = "flux", "ivar", "sn_median", "good_fraction"
"""Columns of `survey/` and `clean/`."""
SAME_LEVEL = 1.6
"""Spectra of one object at two times have levels within this factor: half a magnitude."""
WAVELENGTH = b"wavelength"
"""Key of the grid (`WavelengthGrid.to_json`; vacuum, angstrom) in the metadata of the columns of pixels."""


@dataclass(frozen=True)
class SpectrumKind(InputKind):
    """Spectra of a survey, on the grid that they are stored on."""

    name = "spectrum"
    Settings = SpectrumSettings
    flag_bits = BITS
    faults = FAULTS
    source = "spectrum.flux"
    measured = "spectra"
    parts = "wavelengths"
    reasons = (SKY,)
    models: ClassVar[Mapping[str, Mapping[str, Any]]] = {"spectrum_resnet": {}}
    noisier = True

    grid: WavelengthGrid

    @classmethod
    def of(cls, survey: Survey) -> Self | None:
        section = cls.section(survey)
        return None if section is None else cls(grids(section, survey.check_units)[0])

    @classmethod
    def source_columns(cls, survey: Survey) -> dict[str, str]:
        section: SpectrumSettings = cls.section(survey)
        found: dict[str, str] = {}
        for key in ("flux", "ivar", "error", "mask"):
            for name in getattr(section, key) or []:
                found.setdefault(name, f"spectrum.{key}")
        if section.wavelength.column:
            found.setdefault(section.wavelength.column, "spectrum.wavelength.column")
        if section.sky:
            found.setdefault(section.sky.column, "spectrum.sky.column")
        return found

    @classmethod
    def numeric_columns(cls, survey: Survey) -> set[str]:
        return set()

    @classmethod
    def array_columns(cls, survey: Survey) -> set[str]:
        section: SpectrumSettings = cls.section(survey)
        return set(cls.source_columns(survey)) - ({section.sky.column} if section.sky else set())

    @classmethod
    def wrong_units(cls, units: Mapping[str, str], survey: Survey) -> dict[str, str]:
        return wrong_units(units, cls.section(survey))

    @classmethod
    def inspection(cls, survey: Survey) -> SpectrumInspection:
        return SpectrumInspection(cls.section(survey))

    @classmethod
    def schema(cls, survey: Survey) -> list[pa.Field]:
        grid, _ = grids(cls.section(survey), survey.check_units)
        pixels = pa.list_(pa.float32(), len(grid))
        metadata = {WAVELENGTH: json.dumps(grid.to_json()).encode()}
        return [
            pa.field(FLUX, pixels, metadata=metadata),
            pa.field(IVAR, pixels, metadata=metadata),
            pa.field(SN, pa.float32()),
            pa.field(GOOD, pa.float32()),
        ]

    @classmethod
    def cut_columns(cls, survey: Survey) -> list[str]:
        return [SN, GOOD]

    @classmethod
    def convert(cls, batch: pa.RecordBatch, survey: Survey, ebv: NDArray[np.floating]) -> Converted:
        section: SpectrumSettings = cls.section(survey)
        grid, shared = grids(section, survey.check_units)
        found = Conversion(batch, section, grid, shared, survey.check_units)
        good = good_fraction(found.ivar)
        columns = {
            FLUX: lists(found.flux),
            IVAR: lists(found.ivar),
            SN: median_sn(found.flux, found.ivar),
            GOOD: good,
        }
        rejected = {SKY: is_sky(batch.column(section.sky.column), section.sky.equals)} if section.sky else {}
        return Converted(columns, good == 0, {cls.name: found.faults} if found.faults else {}, rejected)

    @classmethod
    def empty(cls, rows: Rows, survey: Survey) -> NDArray[np.bool_]:
        return np.asarray(numpy_column(rows.column(GOOD)) == 0)

    @classmethod
    def empty_columns(cls, survey: Survey) -> list[str]:
        return [GOOD]

    def agree(self, one: Rows, other: Rows) -> NDArray[np.bool_]:
        """(n,) whether the levels of two spectra differ by less than the factor `SAME_LEVEL`; so do those of which one has no good pixel."""
        if not {FLUX, IVAR} <= set(one.schema.names) or not one.num_rows:
            return np.ones(one.num_rows, np.bool_)
        levels = [
            level(*(_pixels(rows.column(name), len(self.grid)) for name in (FLUX, IVAR))) for rows in (one, other)
        ]
        empty = [~(_pixels(rows.column(IVAR), len(self.grid)) > 0).any(axis=1) for rows in (one, other)]
        return np.asarray((np.abs(np.log(levels[0] / levels[1])) < np.log(SAME_LEVEL)) | empty[0] | empty[1])

    def drift_columns(self) -> list[str]:
        return [GOOD]

    def drift(self, rows: Rows) -> dict[str, dict[str, float | None]]:
        """The fraction of rows that have a spectrum."""
        good = numpy_column(rows.column(GOOD))
        return {"measured": {self.name: float(np.mean(good > 0)) if len(good) else None}}

    def columns(self) -> list[str]:
        return [FLUX, IVAR, SN, GOOD]

    def needed(self) -> list[str]:
        return [FLUX, IVAR]

    def read(self, rows: Rows) -> Spectra:
        flux, ivar = (_pixels(rows.column(name), len(self.grid)) for name in (FLUX, IVAR))
        if not {SN, GOOD} <= set(rows.schema.names):
            return Spectra.of(flux, ivar, self.grid)
        sn, good = (numpy_column(rows.column(name)) for name in (SN, GOOD))
        return Spectra(flux, ivar, sn, good, self.grid)

    def degradation(self, train: Any, learned: Any) -> SpectrumDegradation:
        return SpectrumDegradation()

    @property
    def brightness(self) -> str:
        return "median S/N of a pixel"

    def to_json(self) -> dict[str, Any]:
        return {"grid": self.grid.to_json()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(WavelengthGrid.from_json(content["grid"]))

    def differs(self, survey: Self) -> str:
        return (
            "" if self.grid == survey.grid else f"trained on spectra of {self.grid}, but the survey has {survey.grid}"
        )


def _pixels(column: pa.Array | pa.ChunkedArray, pixels: int) -> NDArray[np.float32]:
    """(n, pixels) the numbers of a column of lists.

    Raises
    ------
    ValueError
        Where it has another number of pixels.
    """
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values = np.asarray(column.flatten(), np.float32)
    if len(values) != len(column) * pixels:
        raise ValueError(f"a spectrum of {pixels} pixels was expected, found {column.type}")
    return values.reshape(-1, pixels)
