"""The input kind image: stamps of several bands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.catalog.files import ReadError
from zmill.columns import lists, numpy_column
from zmill.inputs.base import Converted, InputKind, Rows
from zmill.inputs.further import Further, Identified
from zmill.inputs.image.batch import BITS, Images, aperture, aperture_sn, good_fraction
from zmill.inputs.image.convert import FAULTS, QUIET, Conversion
from zmill.inputs.image.degradation import ImageDegradation
from zmill.inputs.image.plausible import ImageInspection, wrong_shapes, wrong_units
from zmill.inputs.image.settings import ImageSettings
from zmill.inputs.image.sources import FILES, open_source, settings_of
from zmill.sections import ConfigError
from zmill.survey_definition import Survey

FLUX, IVAR, PSF, SN, GOOD, EDGE = "image", "image_ivar", "image_psf", "image_sn", "image_good", "image_edge"
"""Columns of `survey/` and `clean/`."""
OF_SOURCE = "image.source: "
"""Beginning of the names of columns of stamps in a batch; the survey's own columns may have the same names."""
SAME_FLUX = 1.6
"""Stamps of one object at two times have aperture fluxes within this factor: half a magnitude."""


@dataclass(frozen=True)
class ImageKind(InputKind):
    """Stamps of a survey: their bands, pixels on a side, and the width of a pixel in arcsec."""

    name = "image"
    Settings = ImageSettings
    flag_bits = BITS
    faults = FAULTS
    quiet_faults = QUIET
    source = "image.flux"
    measured = "images"
    parts = "bands"
    models: ClassVar[Mapping[str, Mapping[str, Any]]] = {"image_cnn": {}}
    noisier = True

    bands: tuple[str, ...]
    size: int
    pixel_scale: float

    @classmethod
    def of(cls, survey: Survey) -> Self | None:
        section: ImageSettings | None = cls.section(survey)
        if section is not None and section.source:
            settings_of(section)
            if survey.tables:
                raise ConfigError(
                    "survey definition: image.source: stamps in other files are for surveys with `files`, and not for `tables`"
                )
        return None if section is None else cls(tuple(section.bands), section.size, section.pixel_scale)

    @classmethod
    def source_columns(cls, survey: Survey) -> dict[str, str]:
        section: ImageSettings = cls.section(survey)
        return {} if section.source else cls._columns(section)

    @staticmethod
    def _columns(section: ImageSettings) -> dict[str, str]:
        """Columns that the section names -> setting."""
        found = {name: f"image.{key}" for key in ("flux", "ivar", "error", "mask") for name in section.columns(key)}
        if isinstance(section.psf_fwhm, str):
            names = section.bands if "{band}" in section.psf_fwhm else [""]
            found |= {section.psf_fwhm.replace("{band}", band): "image.psf_fwhm" for band in names}
        return found | ({section.edge: "image.edge"} if section.edge else {})

    @classmethod
    def numeric_columns(cls, survey: Survey) -> set[str]:
        section: ImageSettings = cls.section(survey)
        single = isinstance(section.psf_fwhm, str) and "{band}" in section.psf_fwhm
        return {name for name, key in cls.source_columns(survey).items() if key == "image.psf_fwhm" and single}

    @classmethod
    def array_columns(cls, survey: Survey) -> set[str]:
        section: ImageSettings = cls.section(survey)
        return set(cls.source_columns(survey)) - cls.numeric_columns(survey) - {section.edge}

    @classmethod
    def wrong_units(cls, units: Mapping[str, str], survey: Survey) -> dict[str, str]:
        return wrong_units(units, cls.section(survey))

    @classmethod
    def wrong_shapes(cls, shapes: Mapping[str, tuple[int, ...]], survey: Survey) -> dict[str, str]:
        return wrong_shapes(shapes, cls.section(survey))

    @classmethod
    def further_files(cls, survey: Survey) -> dict[str, list[str]]:
        section: ImageSettings = cls.section(survey)
        patterns = settings_of(section).patterns if section.source else []
        return {FILES: patterns} if patterns else {}

    @classmethod
    def by_row_number(cls, survey: Survey) -> bool:
        section: ImageSettings = cls.section(survey)
        return bool(section.source) and settings_of(section).by_row_number

    @classmethod
    def further_faults(cls, survey: Survey, further: Further, rows: int | None) -> list[str]:
        section: ImageSettings = cls.section(survey)
        return open_source(section, further, again=True).faults(cls._columns(section), rows) if section.source else []

    @classmethod
    def complete(cls, batch: pa.RecordBatch, survey: Survey, rows: Identified, further: Further) -> pa.RecordBatch:
        section: ImageSettings = cls.section(survey)
        if not section.source:
            return batch
        found = open_source(section, further).find(rows, list(cls._columns(section)))
        chosen = pa.array(found.which, mask=found.which < 0)
        columns = {name: array.take(chosen) for name, array in found.columns.items()}
        columns |= {name: pa.array(marked) for name, marked in found.marks.items()}
        own = dict(zip(batch.schema.names, batch.columns, strict=True))
        return pa.RecordBatch.from_pydict({**own, **{OF_SOURCE + name: array for name, array in columns.items()}})

    @classmethod
    def further_warnings(cls, survey: Survey, further: Further, kept: int, faults: Mapping[str, int]) -> list[str]:
        section: ImageSettings = cls.section(survey)
        stamps = open_source(section, further).stamps if section.source else None
        used = kept - faults.get("image_missing", 0)
        if not stamps or used >= stamps:
            return []
        if not used:
            raise ReadError(
                f"none of the {stamps:,} stamps of image.source belongs to one of the {kept:,} rows: check how they are joined"
            )
        return [f"{stamps - used:,} of {stamps:,} stamps of image.source belong to no row of the survey"]

    @classmethod
    def inspection(cls, survey: Survey) -> ImageInspection | None:
        section: ImageSettings = cls.section(survey)
        return None if section.source else ImageInspection(section)

    @classmethod
    def schema(cls, survey: Survey) -> list[pa.Field]:
        section: ImageSettings = cls.section(survey)
        stamp = pa.fixed_shape_tensor(pa.float32(), section.shape, dim_names=("band", "y", "x"))
        per_band = pa.list_(pa.float32(), len(section.bands))
        return [
            pa.field(FLUX, stamp),
            pa.field(IVAR, stamp if section.noise == "pixel" else per_band),
            pa.field(PSF, per_band),
            pa.field(SN, pa.float32()),
            pa.field(GOOD, pa.float32()),
            pa.field(EDGE, pa.bool_()),
        ]

    @classmethod
    def cut_columns(cls, survey: Survey) -> list[str]:
        return [SN, GOOD]

    @classmethod
    def convert(cls, batch: pa.RecordBatch, survey: Survey, ebv: NDArray[np.floating]) -> Converted:
        types = {field.name: field.type for field in cls.schema(survey)}
        section: ImageSettings = cls.section(survey)
        if section.source:
            names = [name for name in batch.schema.names if name.startswith(OF_SOURCE)]
            if not names:
                return cls._not_looked_up(batch.num_rows, types)
            batch = batch.select(names).rename_columns([name.removeprefix(OF_SOURCE) for name in names])
        found = Conversion(batch, section)
        good = good_fraction(found.good)
        columns = {
            FLUX: _stored(found.flux, types[FLUX]),
            IVAR: _stored(found.ivar, types[IVAR]),
            PSF: lists(found.psf),
            SN: aperture_sn(found.flux, found.ivar),
            GOOD: good,
            EDGE: found.edge & (good > 0),
        }
        return Converted(columns, good == 0, {cls.name: found.faults} if found.faults else {})

    @staticmethod
    def _not_looked_up(rows: int, types: Mapping[str, pa.DataType]) -> Converted:
        """Rows whose stamps are in other files, before any job."""
        columns = {name: pa.nulls(rows, kind) for name, kind in types.items()}
        return Converted(columns, np.zeros(rows, bool))

    @classmethod
    def empty(cls, rows: Rows, survey: Survey) -> NDArray[np.bool_]:
        return np.asarray(numpy_column(rows.column(GOOD)) == 0)

    @classmethod
    def empty_columns(cls, survey: Survey) -> list[str]:
        return [GOOD]

    def agree(self, one: Rows, other: Rows) -> NDArray[np.bool_]:
        """(n,) whether the aperture fluxes of two stamps differ by less than the factor `SAME_FLUX` or three times their error; so do those of
        which one has no image."""
        if not {FLUX, IVAR} <= set(one.schema.names) or not one.num_rows:
            return np.ones(one.num_rows, np.bool_)
        sums = [aperture(*self._pixels(rows)) for rows in (one, other)]
        both = np.isfinite(sums[0].flux) & np.isfinite(sums[1].flux)
        flux = [np.where(both, found.flux, 0).sum(axis=1) for found in sums]
        error = np.sqrt(sum(np.where(both, found.variance, 0).sum(axis=1) for found in sums))
        close = np.abs(flux[0] - flux[1]) <= 3 * error
        ratio = np.maximum(*flux) <= SAME_FLUX * np.minimum(*flux)
        return np.asarray(close | ratio | ~both.any(axis=1))

    def drift_columns(self) -> list[str]:
        return [GOOD]

    def drift(self, rows: Rows) -> dict[str, dict[str, float | None]]:
        """The fraction of rows that have an image."""
        good = numpy_column(rows.column(GOOD))
        return {"measured": {self.name: float(np.mean(good > 0)) if len(good) else None}}

    def columns(self) -> list[str]:
        return [FLUX, IVAR, PSF, SN, GOOD, EDGE, "ebv"]

    def needed(self) -> list[str]:
        return self.columns()

    def read(self, rows: Rows) -> Images:
        flux, ivar = self._pixels(rows)
        psf = _values(rows.column(PSF)).reshape(-1, len(self.bands))
        sn, good, edge = (numpy_column(rows.column(name)) for name in (SN, GOOD, EDGE))
        known = "ebv" in rows.schema.names
        ebv = numpy_column(rows.column("ebv")) if known else np.full(rows.num_rows, np.nan, np.float32)
        return Images(flux, ivar, psf, sn, good, edge, ebv, self.bands, self.size, self.pixel_scale)

    def _pixels(self, rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The columns of fluxes and of inverse variances, as `Images` has them.

        Raises
        ------
        ValueError
            Where they have another number of pixels.
        """
        bands, size, count = len(self.bands), self.size, rows.num_rows
        flux, ivar = _values(rows.column(FLUX)), _values(rows.column(IVAR))
        if len(flux) != count * bands * size * size or len(ivar) not in (len(flux), count * bands):
            raise ValueError(
                f"stamps of {bands} x {size} x {size} pixels were expected, found {rows.schema.field(FLUX).type}"
            )
        shape = (count, bands, size, size)
        per_pixel = (
            pa.types.is_fixed_size_list(kind := rows.schema.field(IVAR).type) is False or kind.list_size != bands
        )
        return flux.reshape(shape), ivar.reshape(shape if per_pixel else (count, bands, 1, 1))

    def degradation(self, train: Any, learned: Any) -> ImageDegradation:
        return ImageDegradation()

    @property
    def brightness(self) -> str:
        return "S/N of the image in its aperture"

    def to_json(self) -> dict[str, Any]:
        return {"bands": list(self.bands), "size": self.size, "pixel_scale": self.pixel_scale}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(tuple(content["bands"]), content["size"], content["pixel_scale"])

    def differs(self, survey: Self) -> str:
        return "" if self == survey else f"trained on {self._words}, but the survey has {survey._words}"

    @property
    def _words(self) -> str:
        return f"stamps of {self.size} x {self.size} pixels of {self.pixel_scale:g} arcsec in {', '.join(self.bands)}"


def _stored(values: NDArray[np.float32], kind: pa.DataType) -> pa.Array:
    """(n, …) numbers as a column of tensors, or of lists."""
    storage = lists(values.reshape(len(values), int(np.prod(values.shape[1:]))))
    return pa.ExtensionArray.from_storage(kind, storage) if isinstance(kind, pa.BaseExtensionType) else storage


def _values(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
    """All numbers of a column of tensors or lists, one row after the other."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(column, pa.ChunkedArray):  # of no rows
        return np.empty(0, np.float32)
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    return np.asarray(storage.flatten(), np.float32)
