"""Everything that can be found wrong before a job starts: settings, files, columns, models, metrics."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zmill.catalog.footprint import Footprint
from zmill.catalog.sky import healpix
from zmill.clean.cuts import check_cuts
from zmill.config import Config, ConfigError, Survey, nearest
from zmill.labels import base as labels
from zmill.labels.base import LabelsError
from zmill.labels.build import accepted_entries
from zmill.metrics import SELECTABLE, check_metric
from zmill.models.features import check_extra
from zmill.models.registry import check_models
from zmill.survey.check import check_files, check_tables
from zmill.survey.readers import ReadError, open_table
from zmill.survey.rows import positions
from zmill.tune.space import check_searches

LOOK_BYTES, LOOK_ROWS = 2**25, 2**18
"""Survey and label files that together are no larger than this are read before any job, in so many rows at a time."""


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
        check_extra(own, survey.columns.extra, name)
    check_metric(settings.select.metric)
    for name in settings.gates.metrics:
        if name not in SELECTABLE:
            known = sorted(SELECTABLE)
            raise ConfigError(
                f"config.yaml: gates.metrics: there is no metric {name!r}{nearest(name, known)}; there are: {', '.join(known)}"
            )
    check_searches(settings, survey.columns.extra)
    check_cuts(survey, settings.survey)
    if survey.tables:
        train, test = check_tables(survey, settings.data_dir, made_by_workflow)
        return Sources([], [], _names(train), _names(test))
    files = check_files(survey, settings.data_dir, made_by_workflow)
    spectra = labels.check(survey, settings.data_dir, made_by_workflow)
    if _small([*files, *spectra]) and all(label.source == "file" for label in survey.labels):
        _look_ahead(settings, survey, files)
    return Sources(_names(files), _names(spectra), [], [])


def _small(files: Collection[Path]) -> bool:
    """Whether all files are there and can be read in a moment."""
    return all(path.is_file() for path in files) and sum(path.stat().st_size for path in files) <= LOOK_BYTES


def _look_ahead(settings: Config, survey: Survey, files: Collection[Path]) -> None:
    """Refuse labels that lie elsewhere on the sky than the survey, or are too few for a model, before any job."""
    where = f"surveys/{settings.survey}.yaml"
    wanted = [survey.columns.ra or "", survey.columns.dec or ""]
    index = []
    try:
        for path in files:
            for batch in open_table(path, survey.format, survey.group).batches(wanted, LOOK_ROWS, numeric=set(wanted)):
                ra, dec, reason = positions(batch, survey)
                index.append(healpix(ra[reason == 0], dec[reason == 0]))
    except ReadError as error:
        raise ConfigError(str(error)) from None
    if not index:
        raise ConfigError(f"{where}: files: there is no row in {', '.join(_names(files))}")
    footprint = Footprint.of_positions(np.concatenate(index))
    if not len(footprint.start):
        raise ConfigError(
            f"{where}: no row of {', '.join(_names(files))} has a position: check columns.ra and columns.dec"
        )
    try:
        accepted = accepted_entries(survey.labels, settings.labels, footprint, Path(settings.data_dir))
    except LabelsError as error:
        raise ConfigError(f"{where}: {error}") from None
    training = round(accepted * settings.split.train)
    for name, (cls, _) in check_models(settings.models).items():
        if training < cls.min_train:
            raise ConfigError(
                f"config.yaml: models.{name}: needs at least {cls.min_train} training rows; {where} has {accepted} labels of "
                f"quality {settings.labels.min_quality} and above on the survey's sky, of which split.train leaves about "
                f"{training}: add label sources, lower labels.min_quality, or leave the model out"
            )


def _names(paths: Collection[Path]) -> list[str]:
    return [str(path) for path in paths]
