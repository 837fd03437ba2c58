"""Typed configuration: `config.yaml` and one `surveys/<name>.yaml`, validated whole before any job starts.

Every key that exists is declared here, with its meaning, its default and its bounds. A key that is not declared is
refused with the nearest declared one named. `json_schema()` gives the same declarations to editors.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    field_validator,
    model_validator,
)

from zmill.sections import (
    ConfigError,
    Fraction,
    Name,
    Place,
    Radius,
    Section,
    Seed,
    Setting,
    Text,
    nearest,
    parse,
    shown,
)
from zmill.strict_yaml import read_yaml

__all__ = ["Config", "ConfigError", "Name", "Radius", "Section", "Survey", "load", "load_survey", "nearest", "parse"]


# ---------------------------------------------------------------------------------------------- config.yaml


class Demo(Section):
    """The demo sky."""

    area: Annotated[float, Field(gt=0, le=100)] = 3.6
    """Square degrees to simulate; 3.6 hold 300,000 objects."""


class Partitions(Section):
    """How catalogues are cut into files and files into jobs."""

    max_rows: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1_000_000
    """Most rows in one HATS partition (one Parquet file); a denser part of the sky is cut into smaller pixels."""
    max_order: Annotated[int, Field(ge=0, le=15)] = 10
    """Highest HEALPix order of a partition; a pixel of this order keeps all of its rows."""
    shard_rows: Annotated[int, Field(ge=1, le=10**12)] = 20_000_000
    """Partitions are grouped into shards of about this many rows (500 shards at most); one job works through one shard."""


class Labels(Section):
    """How spectroscopic redshifts of all sources are judged and merged."""

    min_quality: Annotated[int, Field(ge=0, le=4)] = 3
    """Lowest quality accepted, on the common scale: 4 certain (>99 %), 3 secure (>90 %), 2 probable, 1 a guess, 0 none."""
    min_redshift: Annotated[float, Field(ge=-1, le=20)] = 0.001
    """Redshifts at or below this are stars or errors."""
    merge_radius_arcsec: Radius = 0.5
    """Entries closer than this, of one or of several sources, are one object."""
    conflict: Annotated[float, Field(gt=0, le=1)] = 0.005
    """Good entries of one object that differ by more than this times (1 + z) are set aside as a conflict."""


class Crossmatch(Section):
    """How spectra find their photometric object."""

    radius_arcsec: Radius = 1.0
    """Largest separation of a match; a label source may name its own."""
    margin_arcsec: Annotated[float, Field(gt=0, le=300)] = 10.0
    """Farthest that a match may reach beyond the edge of a partition; no radius may exceed it."""
    ambiguous: Literal["exclude", "keep"] = "exclude"
    """What becomes of a match that has a second candidate within the radius on either side."""


class Split(Section):
    """Which labelled rows train, choose, calibrate and test the models."""

    by: Literal["sky", "row"] = "sky"
    """`sky`: whole HEALPix blocks, so that a cluster is never on two sides; `row`: object by object."""
    block_order: Annotated[int, Field(ge=0, le=15)] = 8
    """HEALPix order of a block: 8 is 13.7 arcmin on a side, 7 is 27.5, 9 is 6.9."""
    train: Fraction = 0.6
    valid: Fraction = 0.1
    calib: Fraction = 0.1
    test: Fraction = 0.2

    @model_validator(mode="after")
    def _sum_to_one(self) -> Split:
        total = self.train + self.valid + self.calib + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + valid + calib + test must be 1, found {total:g}")
        if min(self.train, self.valid, self.calib, self.test) <= 0:
            raise ValueError("each of train, valid, calib and test must be above 0: every stage needs rows of its own")
        return self


class Clean(Section):
    """What happens to bands without a measurement."""

    impute: Literal["mean_color", "none"] = "mean_color"
    """`mean_color`: filled from the neighbouring bands with the mean colors of the training rows; `none`: left empty."""


class Weights(Section):
    """How labelled rows, which are brighter than the survey, are weighed to stand for it."""

    method: Literal["lima", "none"] = "lima"
    """`lima`: by the density of the survey's rows over that of labelled rows (Lima et al. 2008); `none`: all weigh 1."""
    neighbors: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Labelled neighbors that say how densely labelled rows lie: more are smoother, fewer follow the survey closer."""
    clip: Annotated[float, Field(gt=1, le=1e6)] = 20.0
    """Largest weight, in units of the mean."""
    train: bool = False
    """Whether models are fitted and calibrated with the weights; metrics are given with and without them in any case."""


class Select(Section):
    """How the model that is applied to every row is chosen."""

    metric: str = "crps"
    """A column of the leaderboard; models are compared by it on the validation rows."""


class Predict(Section):
    """How the chosen model is applied to every row."""

    pdf: Literal["none", "compact", "full"] = "compact"
    """`none`: points only; `compact`: 32 quantiles in 64 bytes per row; `full`: the density on the whole grid."""
    batch_rows: Annotated[int, Field(ge=1, le=2**24)] = 65_536
    """Rows that are in the network at a time: memory depends on this and not on the catalogue."""


class Release(Section):
    """How many releases are kept."""

    keep: Annotated[int, Field(ge=1, le=100_000)] = 5
    """Releases kept; older ones are removed once a new one is published."""


class Refresh(Section):
    """When models are learned again, what a new one must do to take the place of the old, and how fast it then does."""

    labels_changed: Fraction = 0.05
    """Models are learned again once more than this share of their labels came, went or changed."""
    every: Annotated[float, Field(gt=0, le=36_500)] | None = 30.0
    """They are learned again after so many days in any case; null: only when labels or settings change."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """A new model must be better than the old by more than this share of `select.metric`, both on the test rows."""
    budget: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Hours of prediction, all jobs together, that a new model may take in one run; the other shards wait for the next."""


class Gates(Section):
    """What a release must satisfy; drift is judged against the current release, where that was made with the same settings."""

    rows_lost: Fraction = 0.001
    """Largest share of rows that may be fewer."""
    magnitudes: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Largest change of the median magnitude in any band."""
    measured: Fraction = 0.05
    """Largest change of the share of rows that are measured in a band."""
    n_of_z: Fraction = 0.05
    """Largest difference of the cumulative distributions of z_median, where one and the same model made them."""
    n_of_z_new_model: Fraction = 0.2
    """The same where models differ: a better one moves n(z), and is meant to, but not by any amount."""
    metrics: dict[str, Annotated[float, Field(ge=-1e6, le=1e6)]] = {}
    """Worst value that metrics of the model on the test rows may have, by name: `crps: 0.1`."""


class ModelSettings(Section):
    """One entry of `models:`; the keys beside `type` belong to the model's own file and are checked there."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: Name | None = None
    """The file in `zmill/models/`; the entry's own name when left out."""


MOST_STEPS = 10**6


class Dimension(Section):
    """The values that a search may give a setting: a list of choices, or everything from `low` to `high`."""

    choices: Annotated[list[Any], Field(max_length=1000)] | None = None
    """Values to choose from; a plain list means the same."""
    low: Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    """Lowest value of a number."""
    high: Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    """Highest value of a number."""
    log: bool = False
    """As likely between 0.001 and 0.01 as between 0.01 and 0.1."""
    step: Annotated[float, Field(gt=0, le=1e12)] | None = None
    """Only `low` plus whole steps; of a setting that is a whole number, 1 when left out."""

    @model_validator(mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        if isinstance(value, list):
            return {"choices": value}
        if not isinstance(value, dict | cls):
            raise ValueError(f"expected a list of choices or {{low: …, high: …}}, found {shown(value)}")
        return value

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Dimension:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.step:
                raise ValueError("give either choices, or low and high (with log or step)")
            if len(self.choices) < 1 or any(self.choices.count(choice) > 1 for choice in self.choices):
                raise ValueError(f"give choices that differ, found {shown(self.choices)}")
        elif self.low is None or self.high is None or self.low >= self.high:
            raise ValueError("give a list of choices, or low and high with low below high")
        elif self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0, found {self.low:g}")
        elif self.log and self.step:
            raise ValueError("give log or step, not both")
        elif self.step and (self.high - self.low) / self.step > MOST_STEPS:
            raise ValueError(f"expected at most {MOST_STEPS:,} steps from low to high, found a step of {self.step:g}")
        elif self.step and abs((self.high - self.low) / self.step % 1 - 0.5) < 0.5 - 1e-9:
            raise ValueError(f"high ({self.high:g}) must be low ({self.low:g}) plus whole steps of {self.step:g}")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        described = handler.resolve_ref_schema(handler(core_schema))
        return {"anyOf": [{"type": "array", "minItems": 1, "items": {}}, described]}


class Search(Section):
    """How the settings of one model are searched for."""

    space: Annotated[dict[Setting, Dimension], Field(min_length=1)]
    """What is searched: settings of the model, each with its values; `networks.width` is `width` under `networks`."""
    trials: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Trainings; with more of them, those that were done are kept."""
    hours: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """No further trial starts once the finished ones took this long together."""
    metric: str | None = None
    """A column of the leaderboard, on the validation rows; `select.metric` when left out."""
    prune: bool = True
    """Networks that fall behind the median of the other trials at the same epoch are given up."""
    seed: Seed | None = None
    """Of what is tried; the seed of everything else when left out."""


class Config(Section):
    """`config.yaml`: what a user edits."""

    survey: Name = "demo"
    """Which definition in `surveys/` to run."""
    data_dir: Place = "data"
    """Folder that the survey definition's relative paths start from; `~` and `$VARIABLE` are expanded."""
    results_dir: Place = "results"
    """Folder for everything zmill writes, below it a folder per survey; `~` and `$VARIABLE` are expanded."""
    seed: Seed = 1
    """Seed of every random choice: same seed, same inputs, same results."""
    demo: Demo = Demo()
    partitions: Partitions = Partitions()
    labels: Labels = Labels()
    crossmatch: Crossmatch = Crossmatch()
    split: Split = Split()
    clean: Clean = Clean()
    weights: Weights = Weights()
    models: dict[Name, ModelSettings] = Field(default={"knn": ModelSettings()}, min_length=1)
    """The models that are trained side by side, by name; null leaves one out: `--config 'models={knn: null}'`."""
    refit: bool = True
    """Once chosen and calibrated, each model learns again from train, valid and calib rows together; never from test rows."""
    tune: dict[Name, Search] = {}
    """Models of `models:` whose settings `snakemake tune` searches for."""
    select: Select = Select()
    predict: Predict = Predict()
    refresh: Refresh = Refresh()
    gates: Gates = Gates()
    release: Release = Release()


# ------------------------------------------------------------------------------------------ surveys/<name>.yaml

RESERVED = {
    *("_healpix_29", "object_id", "ra", "dec", "undetected", "unobserved", "ebv", "imputed", "cut"),
    *("redshift", "redshift_err", "quality", "label_source", "separation_arcsec", "weight"),
}
"""Columns of the catalogues and samples that zmill writes, beside those of each band."""


class Columns(Section):
    """Which column of the survey's files holds what; `{band}` stands for each band in turn."""

    object_id: Text | None = None
    """The survey's own identifier, unique; without one, the row number over all files is used."""
    ra: Text | None = None
    """Right ascension (see `angle_unit`). Left out, together with dec, for tables without positions."""
    dec: Text | None = None
    flux: Text
    """Magnitude, flux or luptitude column, for example `mag_{band}`; which of them `photometry` says."""
    error: Text | None = None
    """Its error column; left out, errors are unknown (NaN)."""
    ebv: Text | None = None
    """E(B-V) in magnitudes, for the extinction."""
    redshift: Text | None = None
    """Spectroscopic redshift; only for tables that are given as training and test sample."""
    extra: list[Text] = []
    """Further columns to carry along, for cuts and as inputs of models (sizes, classes)."""
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
    """A number or a range, with one plain sentence for all else."""
    value = _as_number(value)
    if not isinstance(value, float | dict | Range):
        raise ValueError(f"expected a number such as -99 or a range such as {{max: -1.0e+9}}, found {shown(value)}")
    if isinstance(value, float) and math.isnan(value):
        raise ValueError("NaN needs no sentinel: sentinels.nonfinite says what NaN and null mean")
    return value


def _as_number(value: Any) -> Any:
    """A number as float, also one that YAML reads as text (-1e9); all else as it is."""
    if isinstance(value, int | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            return float(value)
    return value


def _one_of(kinds: dict[type, str]) -> Discriminator:
    """Chooses the alternative of a key that may hold several types, so that a fault is told of that one alone."""
    return Discriminator(lambda value: next((tag for kind, tag in kinds.items() if isinstance(value, kind)), None))


Sentinel = Annotated[
    Annotated[Range, Tag("is-range")] | Annotated[float, Field(allow_inf_nan=True), Tag("is-number")],
    _one_of({float: "is-number", dict: "is-range", Range: "is-range"}),
    BeforeValidator(_as_sentinel),
]
ErrorSentinel = Annotated[
    Sentinel | None, BeforeValidator(lambda value: value if value is None else _as_sentinel(value))
]


class ErrorSentinels(Section):
    """Numbers in the error column that state something of the band: numbers, ranges, or `null` for NaN and null."""

    upper_limit: list[ErrorSentinel] = []
    """The band is undetected, and its value is the upper limit (CIGALE: `[{max: 0}]`; LePHARE: `[-1]`; WISE: `[null]`)."""
    unobserved: list[ErrorSentinel] = []
    """The band was never observed, whatever stands in the flux column."""


class Sentinels(Section):
    """How the survey's files write a missing measurement. Every one of them becomes NaN and a bit of a mask.

    A sentinel is a number or a range `{min: ..., max: ...}`, both ends included. One of `undetected` or `unobserved` in the
    error column means that the error is unknown.
    """

    undetected: list[Sentinel] = []
    """Values that mean: looked at, below the limit (RAIL: 99)."""
    unobserved: list[Sentinel] = []
    """Values that mean: never looked at (RAIL, LePHARE: -99; SDSS: -9999; values around -9.999e9: `{max: -9.0e+9}`)."""
    nonfinite: Literal["undetected", "unobserved"] = "unobserved"
    """What NaN and null mean in the flux column. An infinity makes the band unobserved, unless listed above as `.inf`."""
    limit_in_error: bool = False
    """The error column of an undetected band holds its limiting magnitude or flux (RAIL's DC2 sample)."""
    error: ErrorSentinels = ErrorSentinels()


class Extinction(Section):
    """Galactic extinction: `mag -= coefficient * E(B-V)`."""

    coefficients: dict[Name, Annotated[float, Field(ge=0, le=20, allow_inf_nan=False)]] = {}
    """A_band / E(B-V) of each band; empty: magnitudes are taken as they are."""
    map: Place | None = None
    """A HEALPix FITS map of E(B-V) (RING or NESTED by its header, Galactic or equatorial) where no column has it."""


class LabelSource(Section):
    """One source of spectroscopic redshifts; the keys beside these belong to the source's own file."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Name
    """What `label_source` says in every later table."""
    source: Name = "file"
    """The file in `zmill/labels/`."""
    radius_arcsec: Radius | None = None
    """Match radius of this source where it differs from `crossmatch.radius_arcsec`."""
    files: list[Place] | None = None
    """Of a source that reads files: paths or glob patterns, below `data_dir` unless absolute."""


class Cut(Section):
    """A condition that a row must meet to train a model; rows that fail are predicted all the same and flagged."""

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
"""Range in redshift below which densities would be all but one number."""


class RedshiftGrid(Section):
    """The grid of redshifts on which probability densities live."""

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
    """Training and test tables for data without positions: they take the place of survey, labels and cross-match."""

    train: Annotated[list[Place], Field(min_length=1)]
    """Files that training, validation and calibration rows are drawn from."""
    test: Annotated[list[Place], Field(min_length=1)]
    """Files that are only tested on."""


ZeroPoint = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


def _number_or_column(value: Any) -> Any:
    value = _as_number(value)
    if not isinstance(value, float | str | dict):
        raise ValueError(f"expected a number, a number per band or the name of a column, found {shown(value)}")
    return value


ZeroPoints = Annotated[
    Annotated[ZeroPoint, Tag("is-number")]
    | Annotated[dict[Name, ZeroPoint], Tag("is-per-band")]
    | Annotated[str, Tag("is-column")],
    _one_of({float: "is-number", dict: "is-per-band", str: "is-column"}),
    BeforeValidator(_number_or_column),
]


class Survey(Section):
    """`surveys/<name>.yaml`: what a survey's files look like and which spectroscopic redshifts go with it."""

    PROSE = frozenset({"description"})

    description: str = ""
    files: list[Place] = []
    """Paths or glob patterns, below `data_dir` unless absolute; a folder is a HATS catalogue or collection."""
    format: Literal["fits", "votable", "csv", "ecsv", "ipac", "parquet", "hdf5", "hats", "ascii"] | None = None
    """Read from the file's ending when left out."""
    group: Text | None = None
    """The group of an HDF5 file or the extension of a FITS file that holds the table."""
    tables: Tables | None = None
    columns: Columns
    bands: Annotated[list[Name], Field(min_length=1, max_length=31)]
    """Names of the bands from blue to red: the order of imputation, colors and bit masks, which have 31 bits."""
    filters: dict[Name, Text] = {}
    """speclite's name of each band's filter curve (`lsst2023-r`), for template fits and for the galaxies that the flagship learns from first."""
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
    """What the flux columns hold: magnitudes, luptitudes (asinh magnitudes), or fluxes per frequency in a unit of this name;
    `flux` is a flux or count rate in any other linear unit, with its `zero_point`."""
    zero_point: ZeroPoints | None = None
    """AB magnitude of a flux of 1, for `photometry: flux`: a number, a number per band, or the name of a column that holds it
    row by row (`zp_{band}`). Fluxes in erg/s/cm2/Hz have -48.6."""
    errors: Literal["sigma", "inverse_variance", "signal_to_noise"] = "sigma"
    """What the error columns hold: standard deviations, inverse variances (0: the band is unobserved), or signal-to-noise
    ratios, of the numbers in the flux columns."""
    check_units: bool = True
    """Refuse files whose own units, or names of error columns, contradict `photometry`, `errors` or `angle_unit`. `false`
    only where the files are wrong about themselves."""
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
        if self.column_of("flux", self.reference) is None:
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
        names = [source.name for source in self.labels]
        if len(set(names)) < len(names):
            raise ValueError(f"labels: every source needs a name of its own, found {', '.join(names)}")
        return self

    def _check_fluxes(self, known: set[str]) -> None:
        """Zero points and errors fit the photometry."""
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
        """Every column of the later tables has a name of its own."""
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
        """The reference band's name."""
        return self.reference_band or self.bands[len(self.bands) // 2]

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


# ------------------------------------------------------------------------------------------------- reading


def check_files(files: Iterable[Path | str]) -> None:
    """Refuse files of settings that a parser takes and nobody means. Snakemake reads them on its own, less strictly.

    Parameters
    ----------
    files : those that do not exist are Snakemake's to miss.

    Raises
    ------
    ConfigError
        With the file, the line and what is wrong there.
    """
    for file in map(Path, files):
        if file.is_file():
            read_yaml(file, str(file))


def load(config: dict[str, Any], *surveys: Path) -> tuple[Config, Survey]:
    """Validate the merged Snakemake configuration and the survey definition it names.

    Parameters
    ----------
    config : the dictionary that Snakemake makes of `config.yaml`, `--configfile` and `--config`.
    surveys : folders of survey definitions; the first that has the survey's file wins.
    """
    settings = parse(Config, config, "config.yaml")
    longest = settings.crossmatch.radius_arcsec
    if longest > settings.crossmatch.margin_arcsec:
        raise ConfigError(
            f"config.yaml: crossmatch.radius_arcsec ({longest:g}) is beyond crossmatch.margin_arcsec "
            f"({settings.crossmatch.margin_arcsec:g}): no match may reach beyond the margin; lower the radius or widen the margin"
        )
    survey = load_survey(settings.survey, *surveys)
    for source in survey.labels:
        if source.radius_arcsec and source.radius_arcsec > settings.crossmatch.margin_arcsec:
            raise ConfigError(
                f"surveys/{settings.survey}.yaml: labels: {source.name}: radius_arcsec ({source.radius_arcsec:g}) is "
                f"beyond crossmatch.margin_arcsec ({settings.crossmatch.margin_arcsec:g}) of config.yaml: widen the margin"
            )
    return settings, survey


def load_survey(name: str, *surveys: Path) -> Survey:
    """Read and validate one survey definition."""
    path = next((folder / f"{name}.yaml" for folder in surveys if (folder / f"{name}.yaml").is_file()), None)
    if path is None:
        there = sorted({file.stem for folder in surveys for file in folder.glob("*.yaml")})
        raise ConfigError(
            f"config.yaml: survey: there is no surveys/{name}.yaml{nearest(name, there)}; "
            f"the surveys there are: {', '.join(there) or 'none'}"
        )
    where = f"surveys/{name}.yaml"
    return parse(Survey, read_yaml(path, where), where)


def dump(section: BaseModel) -> dict[str, Any]:
    """A section as plain values, for the parameters of a rule: a rule reruns when one of them changes."""
    return section.model_dump(mode="json")


def json_schema() -> dict[str, Any]:
    """JSON schema of `config.yaml`, for editors."""
    return Config.model_json_schema()


def survey_json_schema() -> dict[str, Any]:
    """JSON schema of a survey definition, for editors."""
    return Survey.model_json_schema()
