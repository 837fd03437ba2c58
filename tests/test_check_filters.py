"""What is found wrong before a job starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from zmill.check import check_filters
from zmill.config import ConfigError, ModelSettings, load_survey
from zmill.inputs.registry import of_survey
from zmill.models.registry import check_models, check_suitable
from zmill.survey_definition import Survey

SURVEYS = Path(__file__).resolve().parents[1] / "surveys"


def demo(filters: dict[str, str]) -> Survey:
    return load_survey("demo", SURVEYS).model_copy(update={"filters": filters})


@pytest.mark.parametrize("file", sorted(SURVEYS.glob("*.yaml")), ids=lambda file: file.stem)
def test_filters_of_every_survey_are_known(file: Path) -> None:
    check_filters(load_survey(file.stem, SURVEYS), file.stem)


def test_a_filter_that_there_is_not_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"surveys/demo.yaml: filters: g: .*'lsst2032-g'; did you mean 'lsst2023-g'"):
        check_filters(demo({"u": "lsst2023-u", "g": "lsst2032-g"}), "demo")


def test_a_path_is_no_name_and_no_filters_at_all_are_fine(tmp_path: Path) -> None:
    own = tmp_path / "lsst2023-g.ecsv"
    own.touch()
    with pytest.raises(ConfigError, match="there is no filter curve"):
        check_filters(demo({"g": str(own)}), "demo")
    check_filters(demo({}), "demo")


def test_a_template_fit_without_filters_is_refused_before_any_job() -> None:
    models = check_models({"bpz": ModelSettings.model_validate({"type": "template"})})
    kinds = {kind.name: kind for kind in of_survey(demo({"u": "lsst2023-u"}))}
    with pytest.raises(
        ConfigError, match=r"models\.bpz: the template fit needs the filter curve of every band; g, r, i, z, y has none"
    ):
        check_suitable(models, kinds)
