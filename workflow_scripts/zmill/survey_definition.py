"""The survey definition: what a survey's files, columns, bands and labels are, as in `surveys/<name>.yaml`.

Every key that exists is declared here, with its meaning, its default and its bounds (`zmill.config` reads and validates the file).
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from zmill.sections import (
    Name,
    PathText,
    Radius,
    Section,
    Text,
    nearest,
    shown,
)
from zmill.sentinels import ErrorSentinels, Sentinels, as_number, one_of

RESERVED = {
    *("_healpix_29", "object_id", "ra", "dec", "undetected", "unobserved", "ebv", "imputed", "cut"),
    *("redshift", "redshift_err", "quality", "label_source", "separation_arcsec", "weight"),
}
"""Columns of zmill's catalogues and samples, in addition to those of each band."""


PHOTOMETRY_KEYS = (
    "photometry",
    "zero_point",
    "errors",
    "vega_to_ab",
    "softening",
    "reference_band",
    "sentinels",
    "filters",
)
"""Keys at the top of a survey definition that describe the photometry alone."""


@cache
def input_kinds() -> tuple[str, ...]:
    """Names of the input kinds: the files and folders of `zmill/inputs/` that have `KIND`. They are read and not imported."""
    spec = find_spec("zmill.inputs")
    folders = [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or ()]
    files = {path.stem: path for folder in folders for path in folder.glob("*.py")}
    files |= {path.parent.name: path for folder in folders for path in folder.glob("*/__init__.py")}
    return tuple(
        sorted(name for name, path in files.items() if re.search(r"^KIND\b", path.read_text("utf-8"), re.MULTILINE))
    )


@cache
def formats() -> tuple[str, ...]:
    """Names of the file formats: the files of `zmill/survey/readers/` that end with `_format`. They are not imported."""
    spec = find_spec("zmill.survey.readers")
    folders = [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or ()]
    return tuple(sorted(path.stem.removesuffix("_format") for folder in folders for path in folder.glob("*_format.py")))


class Columns(Section):
    """Columns of the survey's files; `{band}` stands for each band in turn."""

    object_id: Text | None = None
    """The survey's own identifier, unique; without one, the row number over all files is used."""
    ra: Text | None = None
    """Right ascension (see `angle_unit`). Left out, together with dec, for tables without positions."""
    dec: Text | None = None
    flux: Text | None = None
    """Magnitude, flux or luptitude column, for example `mag_{band}`; `photometry` states which of them."""
    error: Text | None = None
    """Its error column; left out, errors are unknown (NaN)."""
    ebv: Text | None = None
    """E(B-V) in magnitudes, for the extinction."""
    redshift: Text | None = None
    """Spectroscopic redshift; only for tables that are given as training and test sample."""
    extra: list[Text] = []
    """Further columns to keep, for cuts and as inputs of models (sizes, classes)."""
    overrides: dict[str, Text | None] = {}
    """A single band's column where it breaks the template, as `flux_<band>` or `error_<band>`; null: there is none.

    A band without a flux column was never observed; one without an error column has unknown errors.
    """
    angle_unit: Literal["degree", "hour", "radian"] = "degree"
    """Unit of ra (`hour` holds for ra alone; dec is then in degrees)."""

    @model_validator(mode="after")
    def _templates(self) -> Columns:
        for key in ("flux", "error"):
            value = getattr(self, key)
            if value is not None and "{band}" not in value:
                raise ValueError(
                    f"{key}: expected a template with {{band}} such as 'mag_{{band}}', found {shown(value)}"
                )
        if (self.ra is None) != (self.dec is None):
            raise ValueError("ra and dec are given together or not at all")
        return self


class Extinction(Section):
    """Galactic extinction: `mag -= coefficient * E(B-V)`."""

    coefficients: dict[Name, Annotated[float, Field(ge=0, le=20, allow_inf_nan=False)]] = {}
    """A_band / E(B-V) of each band; empty: magnitudes are taken as they are."""
    map: PathText | None = None
    """A HEALPix FITS map of E(B-V) (RING or NESTED by its header, Galactic or equatorial) where no column has it."""


class LabelSource(Section):
    """One source of spectroscopic redshifts; further keys belong to the source's own file."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Name
    """Name of the source, the value of `label_source` in every later table."""
    source: Name = "file"
    """The file in `zmill/labels/`."""
    radius_arcsec: Radius | None = None
    """Match radius of this source where it differs from `crossmatch.radius_arcsec`."""
    files: list[PathText] | None = None
    """For a source that reads files: paths or glob patterns, below `data_dir` unless absolute."""


class Cut(Section):
    """A condition that a row must meet to train a model; rows that fail are still predicted, and flagged."""

    column: Text
    """A column of the imported survey: `mag_<band>`, `magerr_<band>`, `ebv` or one of `columns.extra`."""
    min: Annotated[float, Field(ge=-1e30, le=1e30)] | None = None
    """Lowest value kept."""
    max: Annotated[float, Field(ge=-1e30, le=1e30)] | None = None
    """Highest value kept."""
    equals: Annotated[list[float | str], Field(min_length=1)] | None = None
    """Values kept."""

    @model_validator(mode="after")
    def _something(self) -> Cut:
        if self.min is None and self.max is None and self.equals is None:
            raise ValueError("a cut needs min, max or equals")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min:g}) is above max ({self.max:g}): no row could pass")
        return self


NARROWEST_GRID = 0.01
"""Smallest range of a redshift grid."""


class RedshiftGrid(Section):
    """The grid of redshifts of probability densities."""

    min: Annotated[float, Field(ge=0, le=20)] = 0.0
    max: Annotated[float, Field(gt=0, le=20)] = 3.0
    points: Annotated[int, Field(ge=11, le=4001)] = 301

    @model_validator(mode="after")
    def _ordered(self) -> RedshiftGrid:
        if self.max <= self.min:
            raise ValueError(f"max ({self.max:g}) must be above min ({self.min:g})")
        if self.max - self.min < NARROWEST_GRID:
            raise ValueError(f"expected max at least {NARROWEST_GRID} above min, found {self.min} and {self.max}")
        return self


class Tables(Section):
    """Training and test tables for data without positions, instead of survey, labels and cross-match."""

    train: Annotated[list[PathText], Field(min_length=1)]
    """Files that training, validation and calibration rows are drawn from."""
    test: Annotated[list[PathText], Field(min_length=1)]
    """Files of the test rows."""


ZeroPoint = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


def _number_or_column(value: Any) -> Any:
    value = as_number(value)
    if not isinstance(value, float | str | dict):
        raise ValueError(f"expected a number, a number per band or the name of a column, found {shown(value)}")
    return value


ZeroPoints = Annotated[
    Annotated[ZeroPoint, Tag("is-number")]
    | Annotated[dict[Name, ZeroPoint], Tag("is-per-band")]
    | Annotated[str, Tag("is-column")],
    one_of({float: "is-number", dict: "is-per-band", str: "is-column"}),
    BeforeValidator(_number_or_column),
]


class Survey(Section):
    """`surveys/<name>.yaml`: the format of a survey's files and its sources of spectroscopic redshifts."""

    PROSE = frozenset({"description"})

    description: str = ""
    files: list[PathText] = []
    """Paths or glob patterns, below `data_dir` unless absolute; a folder is a HATS catalogue or collection."""
    format: Annotated[Name, Field(json_schema_extra=lambda schema: schema.update(enum=list(formats())))] | None = None
    """Read from the file's content and ending when left out, except layouts: `desi` coadds, plates of SDSS and BOSS (`spplate`), their
    files of one spectrum each (`sdss_spec`), Gaia's `gaia_xp_coefficients`, and FITS files of one stamp each (`fits_stamp`)."""
    group: Text | None = None
    """The group of an HDF5 file or the extension of a FITS file that holds the table."""
    tables: Tables | None = None
    columns: Columns
    bands: Annotated[list[Name], Field(max_length=31)] = []
    """Names of the bands from blue to red: the order of imputation, colors and bit masks, which have 31 bits. A survey without
    photometry, which has another input kind, leaves `bands` and `columns.flux` out."""
    filters: dict[Name, Text] = {}
    """speclite's name of each band's filter curve (`lsst2023-r`), for template fits and for the synthetic training galaxies of the flagship."""
    photometry: Literal[
        "ab_magnitude",
        "vega_magnitude",
        "luptitude",
        "flux",
        "nanojansky",
        "microjansky",
        "millijansky",
        "jansky",
        "nanomaggy",
        "maggy",
    ] = "ab_magnitude"
    """Content of the flux columns: magnitudes, luptitudes (asinh magnitudes), or fluxes per frequency in a unit of this name;
    `flux` is a flux or count rate in any other linear unit, with its `zero_point`."""
    zero_point: ZeroPoints | None = None
    """AB magnitude of a flux of 1, for `photometry: flux`: a number, a number per band, or the name of a column that holds it
    row by row (`zp_{band}`). Fluxes in erg/s/cm2/Hz have -48.6."""
    errors: Literal["sigma", "inverse_variance", "signal_to_noise"] = "sigma"
    """Content of the error columns: standard deviations, inverse variances (0: the band is unobserved), or signal-to-noise
    ratios, of the numbers in the flux columns."""
    check_units: bool = True
    """Refuse files whose own units, or names of error columns, contradict `photometry`, `errors` or `angle_unit`. `false`
    only where the units in the files are wrong."""
    vega_to_ab: dict[Name, Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]] = {}
    """Added to Vega magnitudes, per band."""
    softening: dict[Name, Annotated[float, Field(gt=0, le=1e-6, allow_inf_nan=False)]] = {}
    """Softening parameter b of luptitudes, per band, in maggies (Lupton et al. 1999)."""
    reference_band: Name | None = None
    """The band that magnitude bins and priors refer to; the middle band when left out."""
    sentinels: Sentinels = Sentinels()
    extinction: Extinction = Extinction()
    cuts: dict[Name, Cut] = {}
    labels: list[LabelSource] = []
    redshift_grid: RedshiftGrid = RedshiftGrid()
    odds_width: Annotated[float, Field(gt=0, le=1)] = 0.1
    """A redshift z_mode is right where it is within this times (1 + z) of the true one, for the column `odds`: 0.03 to 0.1 for photometry,
    0.001 to 0.01 for spectra."""
    sections: dict[Name, dict[str, Any]] = {}
    """Settings of further input kinds, by the name of the kind. In a survey definition, each is a section of that name."""

    @model_validator(mode="before")
    @classmethod
    def _input_kinds(cls, value: Any) -> Any:
        """Gather the sections of input kinds under `sections`."""
        if not isinstance(value, dict):
            return value
        found = {name: value[name] for name in input_kinds() if name in value and name not in cls.model_fields}
        rest = {key: entry for key, entry in value.items() if key not in found}
        return rest | {"sections": {**(value.get("sections") or {}), **found}} if found else value

    @field_validator("format")
    @classmethod
    def _known_format(cls, format: str | None) -> str | None:
        if format is not None and format not in formats():
            raise ValueError(
                f"there is no format {shown(format)}{nearest(format, formats())}; the formats are {', '.join(formats())}"
            )
        return format

    @field_validator("bands")
    @classmethod
    def _bands_once(cls, bands: list[str]) -> list[str]:
        twice = sorted({band for band in bands if bands.count(band) > 1})
        if twice:
            raise ValueError(f"band {', '.join(twice)} is named twice; name each band once, from blue to red")
        return bands

    @model_validator(mode="after")
    def _consistent(self) -> Survey:
        if bool(self.files) == bool(self.tables):
            raise ValueError("give either files (a survey with positions) or tables (training and test tables)")
        if self.tables and not self.columns.redshift:
            raise ValueError("tables need columns.redshift")
        if self.files and not self.columns.ra:
            raise ValueError("files need columns.ra and columns.dec; tables without positions go under tables")
        if not self.bands and not self.sections:
            raise ValueError("bands: name the bands from blue to red, or give the section of another input kind")
        if bool(self.bands) != (self.columns.flux is not None):
            raise ValueError(
                "columns.flux: expected a template with {band} such as 'mag_{band}', and `bands`; a survey without photometry has "
                "neither of them"
            )
        if not self.bands:
            self._no_photometry()
        known = set(self.bands)
        for key in ("filters", "vega_to_ab", "softening"):
            self._only_bands(key, getattr(self, key), known)
        self._only_bands("extinction.coefficients", self.extinction.coefficients, known)
        for key in self.columns.overrides:
            kind, _, band = key.partition("_")
            if kind not in ("flux", "error") or band not in known:
                raise ValueError(f"columns.overrides: expected flux_<band> or error_<band>, found {shown(key)}")
        if self.reference_band is not None and self.reference_band not in known:
            raise ValueError(f"reference_band {self.reference_band!r} is none of the bands {', '.join(self.bands)}")
        if self.bands and self.column_of("flux", self.reference) is None:
            raise ValueError(
                f"columns.overrides: flux_{self.reference}: {self.reference} is the reference band and must have a column; "
                "name another reference_band"
            )
        if self.extinction.coefficients:
            missing = known - set(self.extinction.coefficients)
            if missing:
                raise ValueError(f"extinction.coefficients: none for band {', '.join(sorted(missing))}")
            if bool(self.columns.ebv) == bool(self.extinction.map):
                raise ValueError("extinction.coefficients need E(B-V) from either columns.ebv or extinction.map")
        if self.photometry == "vega_magnitude" and set(self.vega_to_ab) != known:
            raise ValueError("vega_magnitude needs vega_to_ab for every band")
        if self.photometry == "luptitude" and set(self.softening) != known:
            raise ValueError(
                "luptitude needs softening for every band: the b of the survey's asinh magnitudes, in maggies, which no file "
                "states; SDSS has {u: 1.4e-10, g: 0.9e-10, r: 1.2e-10, i: 1.8e-10, z: 7.4e-10}"
            )
        self._check_fluxes(known)
        self._check_extra()
        grid = self.redshift_grid
        step = (grid.max - grid.min) / (grid.points - 1)
        if 2 * self.odds_width * (1 + grid.min) < step:
            raise ValueError(
                f"odds_width: PDFs on a grid with steps of {step:.4g} in redshift do not say whether a redshift is right within "
                f"{self.odds_width:g} (1 + z): expected at least {step / 2 / (1 + grid.min):.2g}, or more redshift_grid.points"
            )
        names = [source.name for source in self.labels]
        if len(set(names)) < len(names):
            raise ValueError(f"labels: every source needs a name of its own, found {', '.join(names)}")
        return self

    def _no_photometry(self) -> None:
        """Refuse keys of the photometry where there is none."""
        whole = {key: getattr(self, key) for key in PHOTOMETRY_KEYS}
        columns = {f"columns.{key}": getattr(self.columns, key) for key in ("error", "overrides")}
        given = [key for key, value in whole.items() if value != type(self).model_fields[key].get_default()]
        given += [key for key, value in columns.items() if value]
        if given:
            raise ValueError(
                f"{', '.join(given)}: for photometry, which the survey does not have: leave out, or name bands and columns.flux"
            )

    def _check_fluxes(self, known: set[str]) -> None:
        """Check that zero points and errors fit the photometry."""
        if (self.photometry == "flux") != (self.zero_point is not None):
            raise ValueError(
                "photometry: flux needs zero_point, the AB magnitude of a flux of 1"
                if self.photometry == "flux"
                else f"zero_point is for photometry: flux; {self.photometry} has its own"
            )
        if isinstance(self.zero_point, dict):
            self._only_bands("zero_point", self.zero_point, known)
            if missing := known - set(self.zero_point):
                raise ValueError(f"zero_point: none for band {', '.join(sorted(missing))}")
        if self.columns.error is None and not any(key.startswith("error_") for key in self.columns.overrides):
            if self.errors != "sigma":
                raise ValueError(f"errors: {self.errors} needs columns.error")
            if self.sentinels.error != ErrorSentinels() or self.sentinels.limit_in_error:
                raise ValueError("sentinels.error and sentinels.limit_in_error need columns.error")
        if self.sentinels.limit_in_error and self.errors != "sigma":
            raise ValueError(
                f"sentinels.limit_in_error: a column of {self.errors} holds no limit; it needs errors: sigma"
            )

    def _check_extra(self) -> None:
        """Check that all columns of the later tables have different names."""
        extra = self.columns.extra
        taken = {f"{kind}_{band}" for kind in ("mag", "magerr", "maglim") for band in self.bands} | RESERVED
        clash = [name for name in dict.fromkeys(extra) if name in taken or extra.count(name) > 1]
        if clash:
            raise ValueError(
                f"columns.extra: {', '.join(clash)} is named twice, or is a column that zmill writes itself; leave out "
                "what is carried along anyway (position, identifier, magnitudes, E(B-V)), rename the others in the files"
            )

    @staticmethod
    def _only_bands(key: str, value: dict[str, Any], known: set[str]) -> None:
        strange = sorted(set(value) - known)
        if strange:
            raise ValueError(f"{key}: {', '.join(strange)} is not among the bands {', '.join(sorted(known))}")

    @property
    def reference(self) -> str:
        """The reference band's name; empty without bands."""
        return self.reference_band or (self.bands[len(self.bands) // 2] if self.bands else "")

    def column_of(self, kind: Literal["flux", "error"], band: str) -> str | None:
        """The input column that holds a band's flux or error, or None where the survey has none.

        A band without a flux column was never observed, and has no error either.
        """
        own = self.columns.overrides
        if own.get(f"flux_{band}", "") is None:
            return None
        template = own.get(f"{kind}_{band}", getattr(self.columns, kind))
        return template.replace("{band}", band) if template else None

    def zero_point_of(self, band: str) -> float | str | None:
        """A band's zero point, for `photometry: flux`: a number, or the name of the column that holds it."""
        if self.column_of("flux", band) is None:
            return None
        if isinstance(self.zero_point, dict):
            return self.zero_point[band]
        return self.zero_point.replace("{band}", band) if isinstance(self.zero_point, str) else self.zero_point
