"""Typed configuration: `config.yaml` and one `surveys/<name>.yaml`, validated completely before any job starts.

Every key that exists is declared here, with its meaning, its default and its bounds. A key that is not declared is
refused with the nearest declared one named. `json_schema()` gives the same declarations to editors.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)

from zmill.sections import (
    ConfigError,
    Fraction,
    Name,
    PathText,
    Radius,
    Section,
    Seed,
    Setting,
    leaves_of,
    nearest,
    parse,
    shown,
)
from zmill.strict_yaml import read_yaml
from zmill.survey_definition import Survey

__all__ = ["Config", "ConfigError", "Name", "Radius", "Section", "load", "load_survey", "nearest", "parse"]


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Identifier = Annotated[
    str,
    Field(min_length=1, json_schema_extra={"type": ["string", "integer"]}),
    BeforeValidator(_as_text),
]


MOST_STAMPS = 300_000
"""Largest number of simulated stamps: what the fields near the equator hold."""


class Demo(Section):
    """The simulated surveys: the demo sky, the spectra of `demo_gaia`, `demo_euclid` and `demo_spherex`, and the stamps of `demo_images` and
    `demo_images_lsst`."""

    area: Annotated[float, Field(gt=0, le=100)] = 3.6
    """Square degrees of the demo sky; 3.6 hold 300,000 objects."""
    spectra: Annotated[int, Field(ge=100, le=10**8)] = 10_000
    """Number of spectra of each simulated survey of spectra."""
    seds: list[PathText] = []
    """Parquet files of rest-frame SEDs (`name`, `wave`, `flux`) that spectra are simulated from, below `data_dir` unless absolute; empty:
    mixtures of the templates of BPZ."""
    stamps: Annotated[int, Field(ge=100, le=MOST_STAMPS)] = 4_000
    """Number of stamps of each simulated survey of images."""
    stamp_size: Annotated[int, Field(ge=16, le=128)] = 32
    """Pixels on a side of these stamps; `image.size` of the survey definition must be the same number."""


class Partitions(Section):
    """Division of catalogues into files, and of files into jobs."""

    max_rows: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1_000_000
    """Largest number of rows in one HATS partition (one Parquet file); denser parts of the sky are divided into smaller pixels."""
    max_order: Annotated[int, Field(ge=0, le=15)] = 10
    """Highest HEALPix order of a partition; a pixel of this order keeps all of its rows."""
    shard_rows: Annotated[int, Field(ge=1, le=10**12)] = 20_000_000
    """Partitions are grouped into shards of about this many rows (500 shards at most); one job processes one shard."""


class Labels(Section):
    """Selection and merging of the spectroscopic redshifts of all sources."""

    min_quality: Annotated[int, Field(ge=0, le=4)] = 3
    """Lowest quality accepted, on the common scale: 4 certain (>99 %), 3 secure (>90 %), 2 probable, 1 a guess, 0 none."""
    min_redshift: Annotated[float, Field(ge=-1, le=20)] = 0.001
    """Redshifts at or below this are stars or errors."""
    merge_radius_arcsec: Radius = 0.5
    """Entries closer than this, of one or of several sources, are one object."""
    conflict: Annotated[float, Field(gt=0, le=1)] = 0.005
    """Accepted entries of one object that differ by more than this times (1 + z) are left out as a conflict."""


class Crossmatch(Section):
    """Cross-match of spectra with photometric objects."""

    radius_arcsec: Radius = 1.0
    """Largest separation of a match; a label source may have its own."""
    margin_arcsec: Annotated[float, Field(gt=0, le=300)] = 10.0
    """Largest distance of a match beyond the edge of a partition; no radius may exceed it."""
    ambiguous: Literal["exclude", "keep"] = "exclude"
    """Treatment of matches with a second candidate within the radius on either side."""


class Split(Section):
    """Division of the labelled rows into training, validation, calibration and test rows."""

    by: Literal["sky", "row"] = "sky"
    """`sky`: by HEALPix blocks, so that a galaxy cluster is never in two splits; `row`: object by object."""
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
    """Treatment of bands without a measurement."""

    impute: Literal["mean_color", "none"] = "mean_color"
    """`mean_color`: filled from the neighboring bands with the mean colors of the training rows; `none`: left empty."""


class Weights(Section):
    """Weights of labelled rows, which are brighter than the survey, so that they represent it."""

    method: Literal["lima", "none"] = "lima"
    """`lima`: by the density of the survey's rows over that of labelled rows (Lima et al. 2008); `none`: all weights are 1."""
    neighbors: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Number of labelled neighbors from which the density is measured: more are smoother, fewer follow the survey more closely."""
    clip: Annotated[float, Field(gt=1, le=1e6)] = 20.0
    """Largest weight, in units of the mean."""
    train: bool = False
    """Whether models are fitted and calibrated with the weights; metrics are always computed with and without them."""


class Select(Section):
    """Selection of the model that is applied to every row."""

    metric: str = "crps"
    """The column of the leaderboard by which models are compared on the validation rows."""


class Predict(Section):
    """Application of the chosen model to every row."""

    pdf: Literal["none", "compact", "full"] = "compact"
    """`none`: points only; `compact`: 32 quantiles in 64 bytes per row; `full`: the density on the complete grid."""
    batch_rows: Annotated[int, Field(ge=1, le=2**24)] = 65_536
    """Rows per batch of inference: memory depends on this and not on the catalogue."""


class Release(Section):
    """Number of releases that are kept."""

    keep: Annotated[int, Field(ge=1, le=100_000)] = 5
    """Releases kept; older ones are removed once a new one is published."""


class Refresh(Section):
    """When models are retrained, the condition for a new model to replace the champion, and the speed of its rollout."""

    labels_changed: Fraction = 0.05
    """Models are retrained after more than this fraction of their labels was added, removed or changed."""
    every: Annotated[float, Field(gt=0, le=36_500)] | None = 30.0
    """Models are retrained after this many days in any case; null: only when labels or settings change."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """A new model must be better than the champion by more than this fraction of `select.metric`, both on the test rows."""
    budget: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Hours of prediction by a new model in one run, summed over all jobs; the other shards wait for the next run."""


class Gates(Section):
    """Conditions for a release; drift is measured against the current release, if it was made with the same settings."""

    rows_lost: Fraction = 0.001
    """Largest fraction of lost rows."""
    magnitudes: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Largest change of the median magnitude in any band; a survey without photometry has no such gate."""
    measured: Fraction = 0.05
    """Largest change of the fraction of rows in which a part of the input is measured, such as a band."""
    n_of_z: Fraction = 0.05
    """Largest difference of the cumulative distributions of z_median, where the same model predicted both."""
    n_of_z_new_model: Fraction = 0.2
    """The same where models differ: a better model is expected to change n(z), within this limit."""
    metrics: dict[str, Annotated[float, Field(ge=-1e6, le=1e6)]] = {}
    """Limits of the model's metrics on the test rows, by name: `crps: 0.1`."""


class ModelSettings(Section):
    """One entry of `models:`; all keys except `type` belong to the model's own file and are checked there."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: Name | None = None
    """The file in `zmill/models/`; the entry's own name when left out."""

    @property
    def files(self) -> list[str]:
        """Files that its settings name. Their content counts as a setting: a model is retrained when it changes."""
        texts = {text for text in leaves_of(self.model_extra) if isinstance(text, str)}
        paths = {os.path.expanduser(os.path.expandvars(text)) for text in texts}  # noqa: PTH111
        return sorted(path for path in paths if os.path.isfile(path))  # noqa: PTH113, because is_file() refuses long texts


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
    """Sample on a logarithmic scale: values between 0.001 and 0.01 are as likely as between 0.01 and 0.1."""
    step: Annotated[float, Field(gt=0, le=1e12)] | None = None
    """Only `low` plus multiples of this step; default 1 for integer settings."""

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
            raise ValueError(f"high ({self.high:g}) must be low ({self.low:g}) plus a multiple of {self.step:g}")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        described = handler.resolve_ref_schema(handler(core_schema))
        return {"anyOf": [{"type": "array", "minItems": 1, "items": {}}, described]}


class Search(Section):
    """Search for the settings of one model."""

    space: Annotated[dict[Setting, Dimension], Field(min_length=1)]
    """The settings of the model to search, each with its values; `networks.width` is `width` under `networks`."""
    trials: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Number of trainings; when it is raised, finished ones are kept."""
    hours: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """No further trial starts after the finished ones took this many hours in total."""
    metric: str | None = None
    """A column of the leaderboard, on the validation rows; `select.metric` when left out."""
    prune: bool = True
    """Stop networks that are worse than the median of the other trials at the same epoch."""
    seed: Seed | None = None
    """Seed of the sampled settings; the general `seed` when left out."""


class Config(Section):
    """The settings of `config.yaml`."""

    survey: Name = "demo"
    """Name of the survey definition in `surveys/`."""
    data_dir: PathText = "data"
    """Folder that the survey definition's relative paths start from; `~` and `$VARIABLE` are expanded."""
    results_dir: PathText = "results"
    """Folder of zmill's results, with a subfolder per survey; `~` and `$VARIABLE` are expanded."""
    seed: Seed = 1
    """Seed of every random choice: same seed, same inputs, same results."""
    demo: Demo = Demo()
    partitions: Partitions = Partitions()
    labels: Labels = Labels()
    crossmatch: Crossmatch = Crossmatch()
    split: Split = Split()
    clean: Clean = Clean()
    weights: Weights = Weights()
    models: dict[Name, ModelSettings] = {}
    """The models to train, by name. Without any, the default models of the survey's first input are trained, except those that are
    null here: `--config 'models={knn: null}'`."""
    refit: bool = True
    """After selection and calibration, each model is refitted to the train, valid and calib rows together; never to test rows."""
    tune: dict[Name, Search] = {}
    """Models of `models:` whose settings `snakemake tune` searches for."""
    retrieve: Annotated[list[Identifier], Field(max_length=1000)] = []
    """Identifiers of objects of the survey, of which `snakemake retrieve` finds the nearest training spectra."""
    select: Select = Select()
    predict: Predict = Predict()
    refresh: Refresh = Refresh()
    gates: Gates = Gates()
    release: Release = Release()


def check_files(files: Iterable[Path | str]) -> None:
    """Refuse settings files with valid but probably unintended YAML, because Snakemake reads them less strictly.

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
