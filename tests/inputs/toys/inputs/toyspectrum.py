"""A toy input kind, one file as `docs/develop/add-an-input-kind.md` describes: spectra of a few pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from zmill.inputs.base import Batch, Converted, InputKind, Rows
from zmill.sections import Section, Text
from zmill.survey_definition import Survey

COLUMN = "spectrum"


class ToySettings(Section):
    """The section `toyspectrum:`."""

    flux: Text
    """Column of the fluxes."""
    pixels: int = Field(ge=4, le=100_000)
    """Pixels of a spectrum."""


@dataclass(frozen=True)
class ToyBatch(Batch):
    """flux : (n, pixels); NaN where unknown."""

    flux: NDArray[np.float32]

    def brightness(self) -> NDArray[np.float32]:
        return np.median(self.flux, axis=1)

    def summary_features(self) -> NDArray[np.float64]:
        return np.stack([part.mean(1) for part in np.array_split(self.flux, 4, axis=1)], axis=1).astype(np.float64)

    @property
    def feature_names(self) -> list[str]:
        return [f"quarter {number}" for number in range(4)]


@dataclass(frozen=True)
class ToySpectrum(InputKind):
    """Spectra of `pixels` pixels."""

    name = "toyspectrum"
    Settings = ToySettings
    source = "toyspectrum.flux"

    pixels: int

    @classmethod
    def of(cls, survey: Survey) -> Self | None:
        section = cls.section(survey)
        return None if section is None else cls(section.pixels)

    @classmethod
    def source_columns(cls, survey: Survey) -> dict[str, str]:
        return {cls.section(survey).flux: "toyspectrum.flux"}

    @classmethod
    def numeric_columns(cls, survey: Survey) -> set[str]:
        return set()

    @classmethod
    def array_columns(cls, survey: Survey) -> set[str]:
        return {cls.section(survey).flux}

    @classmethod
    def schema(cls, survey: Survey) -> list[pa.Field]:
        return [pa.field(COLUMN, pa.list_(pa.float32(), cls.section(survey).pixels))]

    @classmethod
    def convert(cls, batch: pa.RecordBatch, survey: Survey, ebv: NDArray[np.floating]) -> Converted:
        section = cls.section(survey)
        flux = batch.column(section.flux).cast(pa.list_(pa.float32(), section.pixels))
        empty = flux.is_null().to_numpy(zero_copy_only=False)
        return Converted({COLUMN: flux}, empty)

    def columns(self) -> list[str]:
        return [COLUMN]

    def needed(self) -> list[str]:
        return [COLUMN]

    def read(self, rows: Rows) -> ToyBatch:
        column = rows.column(COLUMN)
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        return ToyBatch(np.asarray(column.flatten(), np.float32).reshape(-1, self.pixels))

    @property
    def brightness(self) -> str:
        return "median flux"

    def to_json(self) -> dict[str, Any]:
        return {"pixels": self.pixels}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(content["pixels"])


KIND = ToySpectrum
