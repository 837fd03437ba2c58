"""Checks before a job starts: settings, files, columns, models, metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from zmill.catalog.footprint import Footprint
from zmill.catalog.sky import healpix
from zmill.clean.cuts import check_cuts
from zmill.config import Config, ConfigError, nearest
from zmill.inputs.photometry.extra import check_extra
from zmill.inputs.registry import UnfitModels, check_inputs, of_survey
from zmill.labels import base as labels
from zmill.labels.base import LabelsError
from zmill.metrics import SELECTABLE, check_metric
from zmill.models.registry import check_models, check_suitable, fitting
from zmill.sections import shown
from zmill.sed import known_filters
from zmill.survey.check import check_columns
from zmill.survey.plausible import look
from zmill.survey.readers import ReadError, open_table
from zmill.survey.rows import positions
from zmill.survey_definition import Survey
from zmill.tune.space import check_searches
from zmill.workflow.input_files import Inputs
from zmill.workflow.job import log

LOOK_BYTES, LOOK_ROWS = 2**25, 2**18
"""Survey and label files that together are no larger than this are read before any job, in so many rows at a time."""


def check(settings: Config, survey: Survey, inputs: Inputs) -> None:
    """Check the complete configuration against the files on disk.

    Parameters
    ----------
    inputs : the input files of the run; files that do not exist yet are not checked.

    Raises
    ------
    ConfigError
        The message names the fault, its location, what was expected and what to do.
    """
    check_metric(settings.select.metric)
    for name in settings.gates.metrics:
        if name not in SELECTABLE:
            known = sorted(SELECTABLE)
            raise ConfigError(
                f"config.yaml: gates.metrics: there is no metric {shown(name)}{nearest(name, known)}; there are: {', '.join(known)}"
            )
    models = check_models(settings.models)
    where = f"surveys/{settings.survey}.yaml"
    try:
        check_inputs(survey, {name: cls.inputs for name, (cls, _) in models.items()}, where)
    except UnfitModels as error:
        there = ", ".join(fitting([kind.name for kind in of_survey(survey)]))
        raise ConfigError(f"{error}, and name others; the types that take what it has: {there or 'none'}") from None
    check_filters(survey, settings.survey)
    kinds = {kind.name: kind for kind in of_survey(survey)}
    check_suitable(models, kinds)
    files = [Path(file) for file in (*inputs.survey, *inputs.train, *inputs.test)]
    types = check_columns(files, survey, inputs.further)
    texts = {name for name, kind in types.items() if pa.types.is_string(kind)}
    for name, (_, own) in models.items():
        check_extra(own, survey.columns.extra, name, texts)
    check_searches(settings, survey.columns.extra, texts, kinds)
    check_cuts(survey, settings.survey, types)
    _look_at_values(settings.survey, survey, files)
    if survey.tables:
        return
    labels.check(survey, inputs.sources)
    if _small([*inputs.survey, *inputs.labels]) and all(label.source == "file" for label in survey.labels):
        _look_ahead(settings, survey, inputs.survey)


def _look_at_values(name: str, survey: Survey, files: list[Path]) -> None:
    """Warn of undeclared sentinel values in the first rows; refuse files of which most rows cannot be used."""
    try:
        found = look(files, survey)
    except ReadError as error:
        raise ConfigError(str(error)) from None
    for warning in found.warnings:
        log.warning("surveys/%s.yaml: %s", name, warning)
    if found.refusal:
        raise ConfigError(f"surveys/{name}.yaml: {found.refusal}")


def check_filters(survey: Survey, name: str) -> None:
    """Refuse unknown filter curves: the networks of the flagship and the template fit need them."""
    known = known_filters() if survey.filters else []
    for band, curve in survey.filters.items():
        if curve not in known:
            raise ConfigError(
                f"surveys/{name}.yaml: filters: {band}: there is no filter curve {shown(curve)}{nearest(curve, known)}; expected one of "
                "speclite's (sdss2010-r, decam2014-g, lsst2023-i, …)"
            )


def _small(files: list[str]) -> bool:
    """Whether all files exist and are small enough to be read before any job."""
    paths = [Path(file) for file in files]
    return all(path.is_file() for path in paths) and sum(path.stat().st_size for path in paths) <= LOOK_BYTES


def _look_ahead(settings: Config, survey: Survey, files: list[str]) -> None:
    """Refuse labels that lie elsewhere on the sky than the survey, or are too few for a model, before any job."""
    from zmill.labels.build import accepted_entries  # scipy comes with it

    where = f"surveys/{settings.survey}.yaml"
    wanted = [survey.columns.ra or "", survey.columns.dec or ""]
    index = []
    try:
        for file in files:
            for batch in open_table(file, survey.format, survey.group).batches(wanted, LOOK_ROWS, numeric=set(wanted)):
                ra, dec, reason = positions(batch, survey)
                index.append(healpix(ra[reason == 0], dec[reason == 0]))
    except ReadError as error:
        raise ConfigError(str(error)) from None
    if not index:
        raise ConfigError(f"{where}: files: there is no row in {', '.join(files)}")
    footprint = Footprint.of_positions(np.concatenate(index))
    if not len(footprint.start):
        raise ConfigError(f"{where}: no row of {', '.join(files)} has a position: check columns.ra and columns.dec")
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
