"""The Optuna study of a search: a journal on disk, to which any number of jobs append.

Optuna's journal has one JSON line per operation; jobs only append to it and read the lines of the others. Each trial has a fixed
number in the budget of the search. A job that finds its trial unfinished resumes it, so that a killed job neither loses nor adds
a trial.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from zmill.catalog.lock import NoLocks, take
from zmill.config import Dimension
from zmill.models.base import Settings
from zmill.tune.space import label, type_of

RANDOM_TRIALS = 10
"""Number of random trials before the sampler uses the results of earlier ones."""
COMPARED = 5
"""Trials that must have ended before another one is pruned; three of them must have reached its epoch."""
SPARED_EPOCHS = 4
"""Epochs before which no trial is pruned."""
NUMBER = "number"
"""Attribute of a trial with its number in the budget."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


class TuneError(Exception):
    """A search cannot continue; the message gives the cause and the remedy."""


class Lock(JournalFileOpenLock):
    """A kernel lock on a file next to the journal, which is released when its process ends in any way.

    Optuna's own locks are files, which a killed process leaves behind and another process removes after a timeout.
    """

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self._held = -1

    def acquire(self) -> bool:
        """Wait for the lock, then remove an incomplete last line of a writer that was killed or found the disk full."""
        self._held = os.open(self.journal.with_name(self.journal.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            take(self._held, self.journal, wait=True)
        except NoLocks as error:
            self.release()
            raise TuneError(str(error)) from None
        _cut_torn_line(self.journal)
        return True

    def release(self) -> None:
        """Release the lock."""
        os.close(self._held)


def _cut_torn_line(journal: Path) -> None:
    with open(journal, "r+b") as handle:
        if not handle.seek(0, 2):
            return
        handle.seek(-1, 2)
        if handle.read(1) != b"\n":
            handle.seek(0)
            handle.truncate(handle.read().rfind(b"\n") + 1)


def open_study(journal: Path, name: str, seed: int, number: int) -> optuna.Study:
    """Open the study of a name in a journal, or create it.

    Proposals are by a tree-structured Parzen estimator (TPE; Bergstra et al. 2011) of all settings together. Running
    trials count as bad ones, so that concurrent jobs try different settings; each trial of the budget has its own seed.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(journal), Lock(journal)))
    own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    sampler = optuna.samplers.TPESampler(
        seed=own_seed, multivariate=True, constant_liar=True, n_startup_trials=RANDOM_TRIALS
    )
    pruner = optuna.pruners.MedianPruner(COMPARED, SPARED_EPOCHS, n_min_trials=3)
    return optuna.create_study(storage=storage, study_name=name, sampler=sampler, pruner=pruner, load_if_exists=True)


def begun(study: optuna.Study, number: int) -> bool:
    """Whether a trial of the budget was begun."""
    return _at(study, number) is not None


def claim(study: optuna.Study, number: int, space: dict[str, BaseDistribution], fixed: dict[str, Any] | None) -> Trial:
    """Begin or resume a trial of the budget, with its parameters.

    fixed : parameters that are given and not proposed. The proposed parameters of a trial never change.
    """
    if not begun(study, number):
        chosen = {name: space[name] for name in fixed or {}}
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING, params=fixed or {}, distributions=chosen, user_attrs={NUMBER: number}
            )
        )
    found = _at(study, number)
    assert found is not None
    trial = Trial(study, found._trial_id)
    for name, values in space.items():
        if isinstance(values, CategoricalDistribution):
            trial.suggest_categorical(name, values.choices)
        elif isinstance(values, IntDistribution):
            trial.suggest_int(name, values.low, values.high, step=values.step, log=values.log)
        elif isinstance(values, FloatDistribution):
            trial.suggest_float(name, values.low, values.high, step=values.step, log=values.log)
    return trial


def _at(study: optuna.Study, number: int) -> FrozenTrial | None:
    """The first trial with a number; if two jobs begin it at the same time, both use the same trial."""
    return next((trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get(NUMBER) == number), None)


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """All trials that ended, complete or pruned."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def distributions(space: Mapping[str, Dimension], own: type[Settings]) -> dict[str, BaseDistribution]:
    """The search space as distributions of Optuna."""
    found: dict[str, BaseDistribution] = {}
    for setting, dimension in space.items():
        if dimension.choices is not None:
            found[setting] = CategoricalDistribution([label(choice) for choice in dimension.choices])
            continue
        assert dimension.low is not None and dimension.high is not None
        if type_of(own, setting) is int:
            step = int(dimension.step or 1)
            found[setting] = IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log, step=step)
        else:
            found[setting] = FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
    return found
