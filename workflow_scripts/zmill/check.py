"""Everything that can be found wrong before a job starts: settings, files, columns, models, metrics."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from zmill.clean.cuts import check_cuts
from zmill.config import Config, Survey
from zmill.labels import base as labels
from zmill.metrics import check_metric
from zmill.models.features import check_extra
from zmill.models.registry import check_models
from zmill.survey.check import check_files, check_tables


@dataclass(frozen=True)
class Sources:
    """The files that the run starts from."""

    survey: list[str]
    labels: list[str]
    train: list[str]
    test: list[str]


def check(settings: Config, survey: Survey, made_by_workflow: Collection[Path]) -> Sources:
    """Check the whole configuration against what is on disk.

    Parameters
    ----------
    made_by_workflow : files that a rule will make; those that do not exist yet are taken on trust.

    Raises
    ------
    ConfigError
        What is wrong, where, what was expected and what to do.
    """
    for name, (_, own) in check_models(settings.models).items():
        check_extra(getattr(own, "extra", ()), survey.columns.extra, name)
    check_metric(settings.select.metric)
    check_cuts(survey, settings.survey)
    if survey.tables:
        train, test = check_tables(survey, settings.data_dir, made_by_workflow)
        return Sources([], [], _names(train), _names(test))
    files = check_files(survey, settings.data_dir, made_by_workflow)
    spectra = labels.check(survey, settings.data_dir, made_by_workflow)
    return Sources(_names(files), _names(spectra), [], [])


def _names(paths: Collection[Path]) -> list[str]:
    return [str(path) for path in paths]
