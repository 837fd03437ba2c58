"""A search that cannot be done is refused before any job, by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from models import toy_spectra, toy_survey
from zmill.config import Config, ConfigError, Dimension, load, parse
from zmill.models.registry import model_class, types
from zmill.tune.space import changed, check_searches, combination, fixed_settings, further_inputs, values

MODELS = {"cnn": {}, "fcnn": {}, "other": {"type": "knn"}, "ensemble": {"networks": {"members": 2}}}


def check(tune: dict, extra: tuple[str, ...] = ("size",)) -> None:
    check_searches(parse(Config, {"models": MODELS, "tune": tune}, "config.yaml"), extra)


def space(**dimensions: object) -> dict[str, Dimension]:
    return {
        name: parse(Dimension, value, name) if isinstance(value, dict) else Dimension(choices=value)
        for name, value in dimensions.items()
    }


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"cn": {"space": {"lr": [1e-3]}}}, "config.yaml: tune.cn: there is no 'cn' under models:; did you mean 'cnn'?"),
        ({"knn": {"space": {"k": [3]}}}, "there is no 'knn' under models:"),
        ({"cnn": {"space": {"lrr": [1e-3]}}}, "config.yaml: tune.cnn.space: lrr: unknown key; did you mean 'lr'?"),
        ({"cnn": {"space": {"type": ["knn"]}}}, "config.yaml: tune.cnn.space: type: unknown key"),
        ({"cnn": {"space": {"optimizer": ["adam", "lion"]}}}, "'adam', 'sgd' or 'rmsprop', found 'lion'"),
        ({"cnn": {"space": {"lr": {"low": 0, "high": 1}}}}, "tune.cnn.space: lr: expected above 0, found 0.0"),
        ({"fcnn": {"space": {"ema": {"low": 0.5, "high": 1}}}}, "ema: expected below 1, found 1.0"),
        ({"cnn": {"space": {"batch": {"low": 0.5, "high": 64}}}}, "tune.cnn.space.batch: batch is a whole number, found 0.5"),
        ({"cnn": {"space": {"colors": {"low": 0, "high": 1}}}}, "tune.cnn.space.colors: colors is not a number: give a list"),
        ({"other": {"space": {"k": {"low": 1, "high": 9}}}}, "k is not a number: give a list of choices"),
        ({"cnn": {"space": {"extra": [[], ["sizes"]]}}}, "'sizes' is no input there is; did you mean 'size'?"),
        ({"ensemble": {"space": {"networks.widht": [64]}}}, "tune.ensemble.space: networks.widht: unknown key; did you mean 'width'?"),
        ({"ensemble": {"space": {"networks.width": [4, 64]}}}, "networks.width: expected at least 8, found 4"),
        ({"ensemble": {"space": {"networks.width": {"low": 8.5, "high": 64}}}}, "networks.width is a whole number, found 8.5"),
        ({"ensemble": {"space": {"networks": {"low": 1, "high": 2}}}}, "networks is not a number: give a list of choices"),
        ({"ensemble": {"space": {"networks.extra": [["size"]]}}}, "give `extra` once, next to `networks` and `neighbors`"),
        ({"ensemble": {"space": {"networks": [{"width": 64}], "networks.lr": [1e-3]}}}, "networks holds networks.lr: search either"),
        ({"cnn": {"space": {"lr.low": {"low": 0.1, "high": 1}}}}, "tune.cnn.space: lr: expected a number, found keys and values (low)"),
        ({"cnn": {"space": {"lr": [1e-3]}, "metric": "crsp"}}, "config.yaml: tune.cnn.metric: there is no metric 'crsp'"),
    ],
)  # fmt: skip
def test_a_wrong_search_is_named(tune: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(tune)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"space": {"lr": 5}}, "tune.cnn.space.lr: expected a list of choices or {low: …, high: …}, found 5"),
        ({"space": {"lr": {"lo": 1, "high": 2}}}, "tune.cnn.space.lr.lo: unknown key; did you mean 'low'?"),
        ({"space": {"lr": {"low": 3, "high": 2}}}, "with low below high"),
        ({"space": {"lr": {"low": 0, "high": 2, "log": True}}}, "log needs low above 0"),
        ({"space": {"lr": {"low": 1, "high": 2, "log": True, "step": 0.5}}}, "log or step, not both"),
        ({"space": {"lr": {"low": 1, "high": 2, "step": 0.3}}}, "plus a multiple of 0.3"),
        ({"space": {"lr": [1, 2, 1]}}, "choices that differ"),
        ({"space": {"lr.": [1]}}, "tune.cnn.space.lr.: expected a name of letters, digits and _"),
        ({"space": {}}, "tune.cnn.space: expected at least 1 entry, found none"),
        ({"space": {"lr": [1]}, "trails": 3}, "tune.cnn.trails: unknown key; did you mean 'trials'?"),
    ],
)
def test_what_is_no_search_is_named(search: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(Config, {"tune": {"cnn": search}}, "config.yaml")
    assert message in str(error.value)


def studies(root: Path, name: str) -> Config:
    """config.yaml with a file of searches on top, as Snakemake merges them."""
    config = yaml.safe_load((root / "config.yaml").read_text())
    found = yaml.safe_load((root / "docs/models" / name).read_text())
    config["models"] |= found.pop("models")
    return load({**config, **found}, root / "surveys")[0]


def test_every_type_with_settings_has_a_study_that_is_valid(root: Path) -> None:
    searched: set[str] = set()
    for name in ("studies.yaml", "studies_spectrum.yaml", "studies_spectrum_photometry.yaml", "studies_images.yaml"):
        settings = studies(root, name)
        check_searches(settings, ())
        searched |= {settings.models[model].type or model for model in settings.tune}
    assert searched == {type_ for type_ in types() if model_class(type_).Settings.model_fields}
    assert studies(root, "studies.yaml").tune["cnn"].space["lr"].model_dump(
        exclude_none=True, exclude_defaults=True
    ) == {
        "low": 1e-6,
        "high": 1e-2,
        "log": True,
    }


def test_experiments_over_spectra_are_valid(root: Path) -> None:
    settings = studies(root, "experiments_spectrum.yaml")
    check_searches(settings, (), inputs={"spectrum": toy_spectra.CONTEXT.inputs[0]})
    assert set(settings.tune) == {"depth", "rows", "noise", "optimizer", "batch"}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"sample.rows": [100, 0]}, "sample.rows: found 0, expected a whole number from 1 on"),
        ({"sample.rows": [10.5]}, "sample.rows: found 10.5"),
        ({"sample.noise": {"low": -1, "high": 2}}, "sample.noise: found -1.0, expected a number from 0 on"),
        ({"sample.noise": ["much"]}, "sample.noise: found 'much'"),
        ({"sample.noise": [1.0]}, "noise cannot be added to photometry: leave sample.noise out"),
        ({"sample.row": [10]}, "sample"),
    ],
)
def test_what_is_varied_of_the_sample_is_checked(space: dict, message: str) -> None:
    settings = parse(Config, {"models": {"fcnn": {}}, "tune": {"fcnn": {"space": space}}}, "config.yaml")
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_searches(settings, (), inputs={kind.name: kind for kind in toy_survey.CONTEXT.inputs})


def test_lists_are_choices_and_come_back_as_they_were() -> None:
    dimensions = space(hidden=[[8], [16, 16]], lr={"low": 1e-4, "high": 1e-2})
    assert values(dimensions, {"hidden": "[16, 16]", "lr": 0.005}) == {"hidden": [16, 16], "lr": 0.005}


def test_few_choices_are_gone_through_once_each() -> None:
    dimensions = space(scaling=["minmax", "standard", "robust"], weights=["uniform", "distance"])
    tried = [combination(dimensions, 1, number) for number in range(8)]
    assert len({tuple(one.items()) for one in tried[:6]}) == 6
    assert tried[6:] == [{}, {}]
    assert tried != [combination(dimensions, 2, number) for number in range(8)]
    assert combination(space(lr={"low": 1e-4, "high": 1e-2}, batch=[8, 16]), 1, 0) is None
    assert combination(space(a=list(range(65))), 1, 0) is None


def test_columns_that_any_trial_may_take_are_read() -> None:
    assert further_inputs({"extra": ["size"]}, {}) == ("size",)
    assert further_inputs({"extra": ["size"]}, space(extra=[[], ["ebv", "size"], ["shape"]])) == ("size", "shape")


def test_a_dotted_name_reaches_into_nested_settings() -> None:
    settings = {"networks": {"width": 64, "members": 2}, "distill": False}
    assert changed(settings, {"networks.width": 128, "distilled.lr": 0.1, "distill": True}) == {
        "networks": {"width": 128, "members": 2},
        "distill": True,
        "distilled": {"lr": 0.1},
    }
    assert fixed_settings(settings, ["networks.width", "distill"]) == {"networks": {"members": 2}}
    assert fixed_settings({"networks": {"width": 64}}, ["networks.width", "neighbors.lr"]) == {}
    assert settings == {"networks": {"width": 64, "members": 2}, "distill": False}
